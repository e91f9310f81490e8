from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.reconcile import copying
from lookalike.reconcile.contents import COPIES
from lookalike.reconcile.copying import CopyPlan, CopyTask, copy_rows, copy_tasks
from lookalike.records import SourceFile
from lookalike.sources.listing import listing_schema, write_listing
from lookalike.store import shards
from lookalike.store.files import file_record, read_json
from lookalike.store.objects import open_store
from lookalike.transforms.copy import CopyRows

METADATA = pa.schema([("label", pa.string()), ("year", pa.int64())])


def stored(store: Path, dtype: str) -> dict[int, str]:
    """Two shards of three rows, with odd bits in their vectors."""
    schema = shards.schema(2, pa.schema([("old", pa.string())]), {}, dtype)
    paths = {}
    for number in (3, 8):
        paths[number] = f"embeddings/{number}.parquet"
        with shards.open_shard(open_store(store), paths[number], schema, number) as (writer, _):
            for row in range(3):
                values = {
                    "uri": f"/{number}/{row}", "content_sha256": bytes([number, row]) * 16,
                    "width": row, "height": number, "format": "PNG", "bytes": row + 9, "old": "x",
                }  # fmt: skip
                vector = np.array([number + row / 3, -0.0], dtype=np.float32)
                writer.append(values, vector.astype(dtype))
    return paths


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_copies_have_the_vectors_bit_for_bit(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_BLOCK", 2)
    paths = stored(tmp_path, dtype)
    source = [(8 << 32) + 1, 3 << 32, (8 << 32) + 2]
    pq.write_table(
        pa.table({"uri": ["/a", "/b", "/c"], "source": source, "label": ["l", None, "m"],
                  "year": [1, 2, None]}), tmp_path / "copies.parquet",
    )  # fmt: skip
    schema = shards.schema(2, METADATA, {"lookalike.x": "y"}, dtype)
    task = CopyTask(0, "copies.parquet", "embeddings/20", 20, "done.json")
    done = copy_rows(task, open_store(tmp_path), paths, schema)
    path = done["shard"]["path"]
    record = file_record(tmp_path, path)
    assert done == {"shard": shards.shard_record(record, 20, 3)} == read_json(tmp_path / task.done)
    assert path == f"embeddings/20-{record.sha256[:16]}.parquet"
    assert pq.read_schema(tmp_path / path).metadata[b"lookalike.x"] == b"y"
    before = {row["id"]: row for path in paths.values()
              for row in pq.read_table(tmp_path / path).to_pylist()}  # fmt: skip
    rows = pq.read_table(tmp_path / path).to_pylist()
    assert [row["id"] for row in rows] == [(20 << 32) + i for i in range(3)]
    assert [(row["uri"], row["label"], row["year"]) for row in rows] == [
        ("/a", "l", 1), ("/b", None, 2), ("/c", "m", None)
    ]  # fmt: skip
    for row, old in zip(rows, source, strict=True):
        for name in ("content_sha256", "width", "height", "format", "bytes"):
            assert row[name] == before[old][name]
        found, expected = (np.array(one["embedding"], dtype=dtype) for one in (row, before[old]))
        assert found.tobytes() == expected.tobytes()


def listed(store: Path, names: list[str]) -> tuple[str, ...]:
    files = [
        SourceFile(name, 1, "v", metadata={"label": f"{name} {i}", "year": i})
        for i, name in enumerate(names)
    ]
    return write_listing(open_store(store), "listing", files, listing_schema(METADATA)).parts


def test_metadata_come_from_the_first_listing_of_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "COPY_ROWS", 3)
    monkeypatch.setattr(copying, "_AT_ONCE", 2)
    names = [f"/{i}" for i in range(20)]
    parts = listed(tmp_path, [*names, "/19", "/3"])
    wanted = [f"/{i}" for i in (19, 3, 4, 5, 0, 7, 8, 1)]
    plan = CopyPlan(open_store(tmp_path), "resolved/copies", 40)
    ids = np.concatenate([plan.ids(5), plan.ids(3)])
    assert ids.tolist() == [(40 + i // 3 << 32) + i % 3 for i in range(8)]
    for start, end in ((0, 5), (5, 8)):
        plan.add(pa.table([wanted[start:end], list(range(start, end))], schema=COPIES))
    plan.finish(METADATA, parts)
    assert (plan.rows, plan.file_numbers) == (8, range(40, 43))
    tasks = copy_tasks(open_store(tmp_path), "resolved", 40, "run")
    assert [task.file_no for task in tasks] == [40, 41, 42]
    assert tasks[0].shard == "embeddings/00000040-run"
    tables = [pq.read_table(tmp_path / task.source) for task in tasks]
    assert [table.num_rows for table in tables] == [3, 3, 2]
    rows = pa.concat_tables(tables).to_pylist()
    assert rows == [
        {"uri": uri, "source": i, "label": f"{uri} {uri[1:]}", "year": int(uri[1:])}
        for i, uri in enumerate(wanted)
    ]


def test_a_name_that_is_not_listed_is_an_error(tmp_path: Path) -> None:
    parts = listed(tmp_path, ["/a"])
    plan = CopyPlan(open_store(tmp_path), "copies", 1)
    plan.ids(2)
    plan.add(pa.table([["/a", "/b"], [1, 2]], schema=COPIES))
    with pytest.raises(RuntimeError, match="/b: it is to be stored anew, but it is not in the"):
        plan.finish(METADATA, parts)


def test_nothing_to_copy_makes_no_file(tmp_path: Path) -> None:
    plan = CopyPlan(open_store(tmp_path), "resolved/copies", 1)
    plan.add(COPIES.empty_table())
    plan.finish(METADATA, listed(tmp_path, ["/a"]))
    assert (plan.rows, list(plan.file_numbers)) == (0, [])
    assert copy_tasks(open_store(tmp_path), "resolved", 1, "run") == []


def test_the_transform_writes_what_the_function_writes(tmp_path: Path) -> None:
    paths = stored(tmp_path, "float32")
    pq.write_table(pa.table({"uri": ["/a"], "source": [3 << 32]}), tmp_path / "copies.parquet")
    schema = shards.schema(2, pa.schema([]), {})
    task = CopyTask(4, "copies.parquet", "embeddings/20", 20, "done.json")
    copy = CopyRows(str(tmp_path), paths, schema)
    assert [task] | copy == [4]
    assert isinstance(copy, beam.PTransform)
    found = read_json(tmp_path / task.done)
    assert found == copy_rows(replace(task, done="again.json"), open_store(tmp_path), paths, schema)
