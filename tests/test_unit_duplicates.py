from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.records import SourceFile, Unit
from lookalike.sources import units
from lookalike.store import other_names, shards, unit_duplicates
from lookalike.store.ledger import Counts, LedgerRow, read_ledger, write_ledger
from lookalike.store.storage import file_record, read_json, write_json
from lookalike.store.unit_duplicates import have_containers, merge_duplicates

DIM = 3
FIRST = 7  # file number of the first unit
SCHEMA = shards.schema(DIM, pa.schema([("label", pa.string())]), {"lookalike.x": "y"})
WRITTEN = SCHEMA.set(8, pa.field("embedding", pa.list_(pa.field("element", pa.float32()), DIM)))
# the contents of each unit's files; 0 stands for one that is rejected
UNITS = st.lists(st.lists(st.integers(0, 12), max_size=12), min_size=1, max_size=6)


def vector(content: int) -> np.ndarray:
    return np.array([content, content**0.5, 1], dtype=np.float32)


def digest(content: int) -> bytes:
    return hashlib.sha256(b"%d" % content).digest()


def make_unit(store: Path, number: int, contents: list[int]) -> Unit:
    """A unit as `embed_unit` leaves it."""
    names = (f"{folder}/{number:06d}" for folder in ("units", "ledger", "embedded"))
    source, ledger, done = names
    unit = Unit(number, FIRST + number, f"{source}.parquet", f"embeddings/{FIRST + number}.parquet",
                f"{ledger}.parquet", f"{done}.json")  # fmt: skip
    rows: list[LedgerRow] = []
    first: dict[int, LedgerRow] = {}
    with shards.open_shard(store, unit.shard, SCHEMA, unit.file_no) as (writer, pending):
        for i, content in enumerate(contents):
            uri, sha256 = f"/{number}.tar#{i}", digest(content)
            if not content:
                rows.append(LedgerRow(uri, "rejected", "truncated", "", 1, "v", sha256))
            elif content in first:
                known = first[content]
                rows.append(LedgerRow(uri, "duplicate", "", known.uri, 1, "v", sha256, known.id))
            else:
                row = {"uri": uri, "content_sha256": sha256, "width": 1, "height": content,
                       "format": "PNG", "bytes": 9, "label": f"label {content}"}  # fmt: skip
                row_id = writer.append(row, vector(content))
                first[content] = LedgerRow(uri, "embedded", "", "", 1, "v", sha256, row_id)
                rows.append(first[content])
    counts = Counts()
    for row in rows:
        counts.add(row)
    record, _ = write_ledger(store, unit.ledger, sorted(rows, key=lambda row: row.uri))
    line = shards.shard_record(pending.finished, unit.file_no, writer.rows)
    if not writer.rows:
        (store / unit.shard).unlink()
    write_json(store, unit.done, {"counts": counts.to_json(), "ledger": record.to_json(),
                                  "shard": line if writer.rows else None})  # fmt: skip
    return unit


def make(store: Path, contents: list[list[int]]) -> list[Unit]:
    return [make_unit(store, number, one) for number, one in enumerate(contents)]


def files(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def check(store: Path, run: list[Unit], contents: list[list[int]]) -> None:
    stored: dict[int, dict[str, object]] = {}  # by id
    for unit in run:
        done = read_json(store / unit.done)
        if done["shard"] is None:
            assert not (store / unit.shard).exists()
            continue
        record = file_record(store, unit.shard)
        assert done["shard"] == shards.shard_record(record, unit.file_no, done["shard"]["rows"])
        assert pq.read_schema(store / unit.shard).equals(WRITTEN, check_metadata=True)
        table = pq.read_table(store / unit.shard)
        for row, one in enumerate(table.to_pylist()):
            assert one["id"] == shards.make_id(unit.file_no, row)
            content = one["height"]
            assert one["embedding"] == vector(content).tolist()
            assert (one["content_sha256"], one["label"]) == (digest(content), f"label {content}")
            stored[one["id"]] = one
        assert done["shard"]["rows"] == len(table)
    hashes = [one["content_sha256"] for one in stored.values()]
    assert len(set(hashes)) == len(hashes)
    assert set(hashes) == {digest(content) for one in contents for content in one if content}

    first: dict[bytes, str] = {}
    for unit, own in zip(run, contents, strict=True):
        counts = Counts()
        rows = list(read_ledger(store / unit.ledger))
        names = [f"/{unit.number}.tar#{i}" for i in range(len(own))]
        assert [row.uri for row in rows] == sorted(names)
        by_uri = {row.uri: row for row in rows}
        for i, content in enumerate(own):
            row = by_uri[f"/{unit.number}.tar#{i}"]
            counts.add(row)
            assert row.content_sha256 == digest(content)
            if not content:
                assert (row.status, row.reason, row.id) == ("rejected", "truncated", None)
                continue
            kept = first.setdefault(digest(content), row.uri)
            assert row.id is not None
            assert stored[row.id]["uri"] == kept
            expected = ("embedded", "") if row.uri == kept else ("duplicate", kept)
            assert (row.status, row.detail) == expected
        done = read_json(store / unit.done)
        assert done["counts"] == counts.to_json()
        assert done["ledger"] == file_record(store, unit.ledger).to_json()


@settings(max_examples=30, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(contents=UNITS, at_once=st.sampled_from([3, 1000]))
def test_each_content_is_embedded_once_and_every_id_leads_to_it(
    tmp_path_factory: pytest.TempPathFactory, contents: list[list[int]], at_once: int
) -> None:
    store = tmp_path_factory.mktemp("store")
    run = make(store, contents)
    before = files(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_duplicates, "_ROWS", at_once)
        merged = merge_duplicates(store, run, "merge")
    check(store, run, contents)
    seen = [{content for content in one if content} for one in contents]
    assert merged == sum(map(len, seen)) - len(set().union(*seen))
    touched = {number for number, one in enumerate(seen) if one & set().union(*seen[:number])}
    after = files(store)
    for unit in run:
        if unit.number not in touched:
            for name in {unit.shard, unit.ledger, unit.done} & set(before):
                assert after[name] == before[name]
    assert merge_duplicates(store, run, "merge") == merged
    assert files(store) == after

    # the names that results show beside each row
    expected: dict[int, list[str]] = defaultdict(list)
    for unit in run:
        for row in read_ledger(store / unit.ledger):
            if row.status == "duplicate":
                expected[row.id].append(row.uri)
    blocks = list(other_names.other_names(store, run, "names", crossing=True))
    found = {row_id: sorted(names) for block in blocks for row_id, names in block.items()}
    assert found == {row_id: sorted(names) for row_id, names in expected.items()}
    ids = [row_id for block in blocks for row_id in sorted(block)]
    assert ids == sorted(set(ids))
    assert not (store / "names").exists()


class Killed(BaseException):
    """As if the process ended."""


@pytest.mark.parametrize("before", [True, False])
def test_a_run_killed_at_any_step_ends_with_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    contents = [[1, 2, 0, 3], [2, 4, 2, 5, 1], [], [5, 2, 1], [6, 3, 7, 6, 4, 8, 8]]
    original = tmp_path / "original"
    run = make(original, contents)
    whole = tmp_path / "whole"
    shutil.copytree(original, whole)
    merge_duplicates(whole, run, "merge")
    check(whole, run, contents)

    replace, unlink = os.replace, Path.unlink
    for steps in itertools.count():
        store = tmp_path / f"killed-{steps}"
        shutil.copytree(original, store)
        left = steps

        def step(function: object, *args: object, **options: object) -> None:
            nonlocal left
            if before and not left:
                raise Killed
            function(*args, **options)  # type: ignore[operator]
            if not before and not left:
                raise Killed
            left -= 1

        def counted_unlink(path: Path, missing_ok: bool = False) -> None:
            if path.name.endswith(".tmp"):
                unlink(path, missing_ok)
            else:
                step(unlink, path, missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *args: step(replace, *args))
            patch.setattr(Path, "unlink", counted_unlink)
            try:
                merge_duplicates(store, run, "merge")
            except Killed:
                killed = True
            else:
                killed = False
        if killed:
            merge_duplicates(store, run, "merge")
        assert files(store) == files(whole)
        if not killed:
            break
    assert steps > 8


def test_the_names_of_many_units_are_dealt_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_names, "_FILES", 3)
    monkeypatch.setattr(other_names, "_BATCH", 2)
    run = make(tmp_path, [[1, i + 2, i + 1] for i in range(11)])
    merge_duplicates(tmp_path, run, "merge")
    blocks = list(other_names.other_names(tmp_path, run, "names", crossing=True))
    assert len(blocks) == 11
    assert sorted(blocks[0][shards.make_id(FIRST, 0)]) == [
        "/0.tar#2",
        *sorted(f"/{i}.tar#0" for i in range(1, 11)),
    ]
    assert all(len(names) == 1 for block in blocks[1:] for names in block.values())


def test_whether_units_have_containers(tmp_path: Path) -> None:
    def write(*listed: SourceFile) -> list[Unit]:
        listing = units.write_listing(tmp_path, "l", listed, units.listing_schema(pa.schema([])))
        cut = units.cut_units(tmp_path, listing, "units", 32, lambda uri: b"")
        return [Unit(i, i, name, "", "", "") for i, (name, _) in enumerate(cut)]

    plain = SourceFile("/a", 1, "v")
    assert not have_containers(tmp_path, write(plain))
    assert have_containers(tmp_path, write(plain, SourceFile("/t#b", 1, "v", "", {}, "/t", 0)))
    assert not have_containers(tmp_path, [])
