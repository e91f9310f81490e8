from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lookalike.reconcile import assembling
from lookalike.reconcile.assembling import (
    Ledger,
    Remaining,
    counts_of,
    ledger_of_run,
    samples_of,
    write_ledger_files,
)
from lookalike.store import duplicates, partitions
from lookalike.store.ledger import SCHEMA, LedgerRow, read_ledger
from lookalike.store.objects import open_store
from tests.days import REJECTED, File, Store, digest
from tests.exchanged import meet_here
from tests.file_records import file_record


def rows_of(store: Path, lines: list[dict[str, Any]]) -> dict[str, LedgerRow]:
    ledger = [line for line in lines if line["kind"] == "ledger"]
    return {row.uri: row for line in ledger for row in read_ledger(store / line["path"])}


def names_of(store: Path, lines: list[dict[str, Any]]) -> dict[int, list[str]]:
    files = [line for line in lines if line["kind"] == "duplicates"]
    table = pa.concat_tables(pq.read_table(store / line["path"]) for line in files)
    assert [line["rows"] for line in files] == [
        pq.read_metadata(store / line["path"]).num_rows for line in files
    ]
    assert table["id"].to_pylist() == sorted(table["id"].to_pylist())
    return dict(zip(table["id"].to_pylist(), table["uris"].to_pylist(), strict=True))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two days of a ledger of several partitions."""
    monkeypatch.setattr(partitions, "PARTITION_ROWS", 4)
    monkeypatch.setattr(duplicates, "_PART_ROWS", 3)
    made = Store(tmp_path)
    world = {f"/{i:02d}": File(i % 7) for i in range(20)}
    made.run(world, [0, 1, 2])
    world = {
        **{uri: file for uri, file in world.items() if uri not in ("/01", "/02", "/09", "/16")},
        "/new": File(9),
        "/moved": File(2, 1),
        "/03": File(8, 1),
        "/broken": File(REJECTED),
    }
    made.run(world, [0, 1])
    return made


def test_files_are_partitions_of_names_in_order(store: Store) -> None:
    lines = store.days[-1].ledger
    count = lines[0]["partition"][1]
    assert count == 8
    assert len(lines) > 4
    for line in lines:
        number, parts = line["partition"]
        digest = line["sha256"][:16]
        assert (parts, line["path"]) == (count, f"snapshots/1/ledger/{number:05d}-{digest}.parquet")
        assert file_record(store.root, line["path"]).to_json().items() <= line.items()
        table = pq.read_table(store.root / line["path"])
        assert table.schema.names == SCHEMA.names
        uris = table["uri"].to_pylist()
        assert uris == sorted(uris)
        assert {zlib.crc32(uri.encode()) * count >> 32 for uri in uris} == {number}
        assert line["rows"] == len(uris)


@pytest.mark.slow
def test_files_of_partitions_in_which_nothing_changed_are_those_of_the_parent(
    store: Store,
) -> None:
    world = {f"/{i:02d}": File(100 + i, 5) for i in range(20)}
    world |= {"/copy of 03": File(103, 5), "/broken": File(REJECTED, 5)}
    store.run(world, [0])
    first = store.run(world, [0])  # what was new, or gone, is neither any more
    second = store.run({**world, "/07": File(77, 6)}, [0])
    number = zlib.crc32(b"/07") * 8 >> 32
    assert [line for line in second.ledger if line["partition"][0] != number] == [
        line for line in first.ledger if line["partition"][0] != number
    ]
    [anew] = [line for line in second.ledger if line["partition"][0] == number]
    assert anew["path"].startswith("snapshots/4/ledger/")
    assert len({line["path"] for line in second.ledger}) == len(second.ledger) > 4
    assert {uri: row.status for uri, row in store.rows().items()} == {
        **dict.fromkeys(world, "unchanged"),
        "/07": "embedded",
        "/broken": "rejected",
        "/copy of 03": "duplicate",
    }
    copies = store.rows()["/03"].id
    assert names_of(store.root, second.lines) == {copies: ["/copy of 03"]}
    scratch = open_store(store.root).files("runs/4/compared")
    assert not [path for path in scratch if "/carried/" in path]
    store.run({**world, "/07": File(77, 6)}, [0])
    assert store.days[-1].ledger != second.ledger  # "/07" is unchanged now
    again = store.run({**world, "/07": File(77, 6)}, [0])
    assert again.ledger == store.days[-2].ledger


def test_ids_are_those_after_moving(store: Store) -> None:
    before, names = store.rows(), names_of(store.root, store.days[-1].lines)
    ledger = ledger_of_run(
        open_store(store.root),
        "snapshots/moved",
        "runs/1/compared",
        "runs/1/resolved",
        store.shards,
        None,
    )
    ledger = replace(ledger, records="runs/1/moved", moved=moved_away)
    lines = written(store, ledger)
    found = rows_of(store.root, lines)
    assert set(found) == set(before)
    for uri, row in found.items():
        old = before[uri].id
        assert row.id == (None if old is None else old * 2 + 1)
    assert len(names) >= 3
    assert names_of(store.root, lines) == {i * 2 + 1: uris for i, uris in names.items()}
    [added] = [
        row for row in samples_of(open_store(store.root), ledger)["added"] if row["uri"] == "/new"
    ]
    assert added["id"] == found["/new"].id


def moved_away(_: Any) -> Any:
    return twice


def twice(ids: np.ndarray) -> np.ndarray:
    return ids * 2 + 1


def written(store: Store, ledger: Ledger) -> list[dict[str, Any]]:
    return write_ledger_files(open_store(store.root), ledger, meet_here(open_store(store.root)), 0)


def remaining(store: Store, folder: str, keep: Any, moved: Any) -> Ledger:
    lines = store.days[-1].ledger
    return Ledger(
        folder,
        f"runs/{Path(folder).name}",
        Remaining(tuple(one["path"] for one in lines), keep),
        tuple(one["partition"] for one in lines),
        (6, 8),
        moved,
        {},
    )


def test_a_ledger_loses_rows_and_its_ids_change(store: Store) -> None:
    before = store.rows()
    ledger = remaining(store, "snapshots/less", without_four, seven_on)
    lines = written(store, ledger)
    counts = counts_of(open_store(store.root), ledger)
    found = rows_of(store.root, lines)
    assert set(found) == {
        uri
        for uri, row in before.items()
        if row.status != "removed" and row.content_sha256 != digest(4)
    }
    assert len(found) < len(before) - 4
    for uri, row in found.items():
        old = before[uri].id
        assert row.id == (None if old is None else old + 7)
    partitions_before = {tuple(line["partition"]) for line in store.days[-1].ledger}
    ledger = [line for line in lines if line["kind"] == "ledger"]
    assert {tuple(line["partition"]) for line in ledger} <= partitions_before
    for line in ledger:
        assert line["rows"] == pq.read_metadata(store.root / line["path"]).num_rows > 0
    expected: dict[int, list[str]] = {}
    for uri, row in sorted(found.items()):
        if row.status == "duplicate" and row.id is not None:
            expected.setdefault(row.id, []).append(uri)
    assert expected
    assert names_of(store.root, lines) == expected
    assert counts.by_status == Counter(row.status for row in found.values())


def without_four(table: Any) -> np.ndarray:
    wrong = pc.equal(table["status"], "removed").to_numpy()
    content = pc.equal(table["content_sha256"], digest(4)).to_numpy(zero_copy_only=False)
    return ~(wrong | content)


def seven_on(_: Any) -> Any:
    return seven


def seven(ids: np.ndarray) -> np.ndarray:
    return ids + 7


def test_a_file_of_which_nothing_is_left_is_gone(store: Store) -> None:
    lines = written(store, remaining(store, "snapshots/none", nothing, None))
    assert [(line["kind"], line["rows"]) for line in lines] == [("duplicates", 0)] * 3
    assert list((store.root / "snapshots/none/ledger").iterdir()) == []


def nothing(table: Any) -> np.ndarray:
    return np.zeros(table.num_rows, dtype=bool)


def test_samples_are_some_of_each_kind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = store.days[-1].samples
    found = {kind: sorted(row["uri"] for row in rows) for kind, rows in everything.items()}
    assert found == {
        "added": ["/broken", "/moved", "/new"],
        "changed": ["/03"],
        "removed": ["/01", "/02", "/09", "/16"],
        "renamed": ["/moved"],
        "rejected:truncated": ["/00", "/07", "/14", "/broken"],
    }
    (renamed,) = everything["renamed"]
    assert renamed["previous"] == "/02"
    monkeypatch.setattr(assembling, "SAMPLES", 2)
    ledger = ledger_of_run(
        open_store(store.root),
        "snapshots/few",
        "runs/1/compared",
        "runs/1/resolved",
        store.shards,
        None,
    )
    ledger = replace(ledger, records="runs/1/few")
    written(store, ledger)
    few = samples_of(open_store(store.root), ledger)
    for kind, uris in found.items():
        best = sorted(uris, key=lambda uri: zlib.crc32(uri.encode()))[:2]
        assert [row["uri"] for row in few[kind]] == best
        assert set(few[kind][0]) - {"previous"} == set(SCHEMA.names)
