"""Compaction: every living row once, its vector bit for bit, under the id that `Moved` says."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.pipelines.config import CompactConfig
from lookalike.store import compacting, shard_format, shards
from lookalike.store.compacting import compact, needs_compaction, plan_compaction
from lookalike.store.moving import Moved
from lookalike.store.objects import open_store
from tests.nights import Nights

NONE = np.empty(0, dtype=np.int64)


@st.composite
def stores(draw: st.DrawFn) -> tuple[list[dict[str, Any]], np.ndarray, set[int] | None]:
    """Lines of shards with numbers in any order, deleted rows, maybe the files to write anew."""
    rows = draw(st.lists(st.integers(1, 12), min_size=1, max_size=8))
    numbers = draw(st.permutations(range(3, 3 + len(rows))))
    lines = [
        {"file_no": number, "path": f"{number}.parquet", "rows": count}
        for number, count in zip(numbers, rows, strict=True)
    ]
    every = [one["file_no"] << 32 | row for one in lines for row in range(one["rows"])]
    deleted = draw(st.lists(st.sampled_from(every), unique=True))
    only = draw(st.none() | st.sets(st.sampled_from(numbers), min_size=1))
    return lines, np.array(sorted(deleted), dtype=np.int64), only


def ids_of(line: dict[str, Any]) -> np.ndarray:
    return (line["file_no"] << 32) + np.arange(line["rows"], dtype=np.int64)


@settings(max_examples=200)
@given(stores(), st.integers(5, 40))
def test_moved_is_the_plain_loop(
    made: tuple[list[dict[str, Any]], np.ndarray, set[int] | None], most: int
) -> None:
    lines, deleted, only = made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compacting, "SHARD_ROWS", most)
        patch.setattr(compacting, "_SMALL", most // 2)
        tasks = plan_compaction(lines, deleted, 100, "run", "runs/run", only=only)
    gone = set(deleted.tolist())
    expected = {int(one): int(one) for line in lines for one in ids_of(line)}
    for number, task in enumerate(tasks):
        assert (task.number, task.file_no) == (number, 100 + number)
        row = 0
        for source in task.sources:
            for one in ids_of(source).tolist():
                expected[one] = -1 if one in gone else task.file_no << 32 | row
                row += one not in gone
        assert row == task.rows
        assert row <= most or len(task.sources) == 1
    moved = Moved(tasks, deleted)
    ids = np.array([*expected, -1, 1 << 32], dtype=np.int64)
    np.testing.assert_array_equal(moved(ids), [*expected.values(), -1, 1 << 32])
    # Every living row is somewhere once, and only deleted rows of shards that stay are deleted.
    living = moved(np.array([one for one in expected if one not in gone], dtype=np.int64))
    assert len(np.unique(living)) == len(living) == len(expected) - len(gone)
    assert (living >= 0).all()
    assert moved.tombstones.tolist() == [one for one in deleted if one >> 32 not in moved.files]
    if only is not None:
        assert moved.files == only
    assert moved.files == {source["file_no"] for task in tasks for source in task.sources}
    assert moved.targets == {task.file_no for task in tasks}


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float16"]))
def test_living_rows_keep_their_vectors_and_columns(seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    with TemporaryDirectory() as folder:
        nights = Nights(Path(folder), 6)
        for _ in range(int(rng.integers(1, 5))):
            count = int(rng.integers(1, 700))
            nights.add(rng.standard_normal((count, 6)).astype(dtype).astype("f4"), dtype)
        every = np.array([*nights.rows], dtype=np.int64)
        nights.remove(rng.choice(every, int(rng.integers(0, len(every) + 1)), replace=False))
        before, named = dict(nights.rows), columns(nights)
        moved = nights.compact()
        assert len(nights.rows) == len(before)
        found = {}
        for line in nights.lines:
            for ids, vectors in shards.iter_blocks(nights.store / line["path"]):
                found.update(zip(ids.tolist(), vectors, strict=True))
        found = {one: vector for one, vector in found.items() if one not in set(nights.deleted)}
        ids = moved(np.array([*before], dtype=np.int64)).tolist()
        assert sorted(found) == sorted(ids)
        for one, vector in zip(ids, before.values(), strict=True):
            assert found[one].tobytes() == vector.tobytes()
        after = columns(nights)
        assert all(after[new] == named[old] for new, old in zip(ids, before, strict=True))


def columns(nights: Nights) -> dict[int, Any]:
    """Name and label by id."""
    return {
        row["id"]: (row["uri"], row["label"], row["bytes"], row["content_sha256"])
        for line in nights.lines
        for row in shards.iter_rows(
            nights.store / line["path"], ["id", "uri", "label", "bytes", "content_sha256"]
        )
    }


def test_columns_and_types_are_united(tmp_path: Path) -> None:
    kinds = [
        (pa.schema([("size", pa.int32()), ("tag", pa.string())]), {"size": 3, "tag": "a"}),
        (pa.schema([("size", pa.int64()), ("more", pa.bool_())]), {"size": 2**40, "more": True}),
        (pa.schema([("tag", pa.int64())]), {"tag": 7}),
        (pa.schema([("tag", pa.list_(pa.int64()))]), {"tag": [1, 2]}),
    ]
    lines = []
    for number, (metadata, row) in enumerate(kinds, start=1):
        schema = shard_format.schema(
            2, metadata, {"lookalike.x": "y"}, "float16" if number == 1 else "float32"
        )
        path = f"embeddings/{number}.parquet"
        with shards.open_shard(open_store(tmp_path), path, schema, number) as (writer, pending):
            writer.append({"uri": f"/{number}", **row}, np.array([0.1, number], np.float32))
        lines.append(shards.shard_record(pending.finished, number, 1))
    [task] = plan_compaction(lines, NONE, 9, "run", "runs/run")
    line = compact(task, open_store(tmp_path), NONE)["shard"]
    assert line == compact(task, open_store(tmp_path), NONE)["shard"]  # a retry is given the same
    table = pq.read_table(tmp_path / line["path"])
    assert table["size"].to_pylist() == [3, 2**40, None, None]
    assert table["tag"].to_pylist() == ["a", None, "7", "[1, 2]"]
    assert table["more"].to_pylist() == [None, True, None, None]
    assert table["id"].to_pylist() == [9 << 32 | row for row in range(4)]
    assert table.schema.metadata[b"lookalike.x"] == b"y"
    np.testing.assert_array_equal(
        np.stack(table["embedding"].to_numpy()).astype("f4"),
        np.array([[np.float16(0.1), 1], [0.1, 2], [0.1, 3], [0.1, 4]], dtype="f4"),
    )


def lines(*rows: int) -> list[dict[str, Any]]:
    return [{"file_no": n, "path": f"{n}.parquet", "rows": count} for n, count in enumerate(rows)]


def test_what_is_full_or_alone_stays() -> None:
    assert plan_compaction(lines(65_536, 40_000, 500), NONE, 9, "run", "runs/run") == []
    few = np.arange(100, dtype=np.int64)  # deleted rows of the first
    assert plan_compaction(lines(65_536, 65_536), few, 9, "run", "runs/run") == []
    many = np.arange(5000, dtype=np.int64)
    [task] = plan_compaction(lines(65_536, 65_536), many, 9, "run", "runs/run")
    assert ([one["file_no"] for one in task.sources], task.rows) == ([0], 60_536)
    [task] = plan_compaction(lines(65_536, 65_536), few, 9, "run", "runs/run", only={0})
    assert task.rows == 65_436
    assert (task.output, task.done) == (
        "embeddings/00000009-run",
        "runs/run/compacted/000000.json",
    )


def test_a_shard_without_living_rows_leaves_none(tmp_path: Path) -> None:
    deleted = np.arange(5, dtype=np.int64)
    [task] = plan_compaction(lines(5), deleted, 9, "run", "runs/run")
    assert compact(task, open_store(tmp_path), deleted) == {"shard": None}
    assert not list(tmp_path.rglob("*.parquet"))
    np.testing.assert_array_equal(Moved([task], deleted)(deleted), -np.ones(5))


@pytest.mark.parametrize(
    ("deltas", "added", "deleted", "reason"),
    [
        ([], 200, 0, ""),
        ([100], 150, 0, ""),
        ([100], 151, 0, "max_delta_share 0.25"),
        ([1] * 15, 1, 0, ""),
        ([1] * 16, 1, 0, "max_deltas 16"),
        ([1] * 16, 0, 0, ""),
        ([], 0, 200, ""),
        ([], 0, 201, "max_tombstone_share 0.2"),
    ],
)
def test_when_to_compact(deltas: list[int], added: int, deleted: int, reason: str) -> None:
    parent = {"files": [{"rows": 700}, *({"rows": rows, "delta": True} for rows in deltas)]}
    files = lines(1000 - added, added)
    found = needs_compaction(
        parent, files, files[1:], np.arange(deleted, dtype=np.int64), CompactConfig()
    )
    assert len(found) == bool(reason)
    assert all(reason in one for one in found)
    first = needs_compaction(None, files, files, NONE, CompactConfig())
    assert first == ()
