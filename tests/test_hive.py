"""Columns in the names of folders, against pyarrow's own reading of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from lookalike.sources.hive import Partitions, partition_schema, partition_values
from lookalike.sources.kinds import metadata_schema, open_source
from lookalike.sources.vector_pieces import piece_of
from lookalike.sources.vector_rows import read_rows
from lookalike.sources.vector_tables import list_tables
from lookalike.sources.vector_tables import metadata_schema as vector_schema
from lookalike.store.objects import open_store
from tests.scanning import cut_vectors, list_vectors

FOLDERS = [
    "year=2024/label=cat",
    "year=07/label=a%2Fb%20c",
    "year=-3/label=__HIVE_DEFAULT_PARTITION__",
    "year=0/label=x=y",
    "year=1/lab%65l=%C3%BC",
    "year=1/label=ü",
    "year=2/year=3/label=",
    "plain/=none",
]


@pytest.mark.parametrize("folder", FOLDERS)
def test_values_are_those_that_pyarrow_reads(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), path := tmp_path / folder / "a.parquet")
    named = partition_values(str(path))
    kind = ds.partitioning(pa.schema([(name, pa.string()) for name in named]), flavor="hive")
    [row] = ds.dataset(tmp_path, partitioning=kind).to_table().to_pylist()
    assert {"x": 1, **named} == row


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a=1/b%3D=2/t.parquet?region=x=y", {"a": "1", "b": "=2"}),
        ("s3://bucket/a=x%2520y/t.parquet", {"a": "x y"}),
        ("gs://bucket/t=1.parquet", {}),
        ("/a=1/b", {"a": "1"}),
        ("file:///a=%FF/b=1/t.parquet", {"a": "\ufffd", "b": "1"}),
        ("/data/k=v/a/b/t.parquet", {"k": "v"}),
        ("/data/k==/t.parquet", {"k": "="}),
    ],
)
def test_values_of_uris(uri: str, expected: dict[str, str]) -> None:
    assert partition_values(uri) == expected


def test_types() -> None:
    kinds = partition_schema(
        [
            {"whole": "01", "mixed": "1", "none": None, "big": str(2**63), "low": str(-(2**63))},
            {"whole": "-2", "mixed": "x", "none": None, "empty": "", "real": "1.5"},
            {"whole": None},
        ]
    )
    assert {one.name: str(one.type) for one in kinds} == {
        "whole": "int64",
        "mixed": "string",
        "none": "string",
        "big": "string",
        "low": "int64",
        "empty": "string",
        "real": "string",
    }
    assert Partitions(["/m=01/id=a/t", "/m=12/t"]).of("/m=01/id=a/t") == {
        "m": 1,
        "manifest_id": "a",
    }


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(folder: str, columns: dict[str, Any], name: str = "part.parquet") -> Path:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / folder / name)
        return tmp_path

    return make


def images_listed(spec: Path | str) -> tuple[dict[str, str], list[dict[str, object]], list[str]]:
    """The metadata columns of a source, the metadata of its files, and what was told."""
    said: list[str] = []
    source = open_source(str(spec))
    rows = [dict(file.metadata) for file in source.files(said.append)]
    return {one.name: str(one.type) for one in metadata_schema([source])}, rows, said


def test_tables_of_images(write: Write) -> None:
    write("year=2023/label=cat", {"image": [b"1", b"2"], "n": [1, 2]})
    root = write("year=2024/label=__HIVE_DEFAULT_PARTITION__", {"image": [b"3"], "n": [3]})
    kinds, rows, said = images_listed(root / "**/*.parquet")
    assert kinds == {"n": "int64", "year": "int64", "label": "string"}
    assert rows == [
        {"year": 2023, "label": "cat", "n": 1},
        {"year": 2023, "label": "cat", "n": 2},
        {"year": 2024, "label": None, "n": 3},
    ]
    assert said == []
    # however the table is named
    assert images_listed(root / "year=2023/label=cat/part.parquet")[1] == rows[:2]
    assert images_listed(root / "year=2023/*/*.parquet")[1] == rows[:2]


def test_manifests(write: Write) -> None:
    root = write("label=7/day=a b", {"uri": ["1.jpg", "2.jpg"], "x": [1.5, None]})
    write("label=cat/day=c", {"uri": ["/3.jpg"]})
    (root / "label=8").mkdir()
    (root / "label=8/list.csv").write_text("uri,x\n/4.jpg,1\n")
    one = images_listed(root / "label=7/day=a b/part.parquet")
    assert one[0] == {"x": "double", "label": "int64", "day": "string"}
    assert one[1] == [{"label": 7, "day": "a b", "x": 1.5}, {"label": 7, "day": "a b", "x": None}]
    kinds, rows, _ = images_listed(root / "**/*.parquet")
    assert kinds["label"] == "string"
    assert [row["label"] for row in rows] == ["7", "7", "cat"]
    assert images_listed(root / "label=8/list.csv")[1] == [{"label": 8, "x": 1}]
    assert images_listed(root / "label=8/*.csv")[1] == [{"label": 8, "x": 1}]
    files = list(open_source(str(root / "**/*.parquet")).files(pytest.fail))
    assert [file.uri for file in files] == [
        f"{root}/label=7/day=a b/1.jpg",
        f"{root}/label=7/day=a b/2.jpg",
        "/3.jpg",
    ]


def test_a_rows_own_value_counts_and_is_told_where_it_differs(write: Write) -> None:
    write("year=2023", {"image": [b"1"], "year": [2023]}, "a.parquet")
    write("year=2023", {"image": [b"1"], "year": ["2023"]}, "b.parquet")
    root = write("year=2023", {"image": [b"1", b"2"], "year": [2023, 1999]}, "c.parquet")
    assert images_listed(root / "year=2023/a.parquet")[1:] == ([{"year": 2023}], [])
    assert images_listed(root / "year=2023/b.parquet")[1:] == ([{"year": "2023"}], [])
    _, rows, said = images_listed(root / "*/*.parquet")
    assert [row["year"] for row in rows] == [2023, "2023", 2023, 1999]
    assert said == [
        f"{root}/year=2023/c.parquet: the rows' own year counts (1999 in "
        f"{root}/year=2023/c.parquet#1), and not its folder's name (year=2023)"
    ]


def vectors(**more: list[Any]) -> dict[str, Any]:
    return {"uri": [f"u{i}" for i in range(2)], "embedding": [[1.0, 2.0]] * 2, **more}


@pytest.mark.parametrize("spec", ["", "**/*.parquet", "*/*"])
def test_tables_of_vectors(spec: str, write: Write) -> None:
    write("label=cat/month=01", vectors())
    root = write("label=%F0%9F%90%88/month=12", vectors(month=[12, 12]))
    tables = list_tables([str(root / spec)], pytest.fail)
    kinds = {one.name: str(one.type) for one in vector_schema(tables)}
    assert kinds == {"month": "int64", "label": "string"}
    assert [dict(table.partitions) for table in tables] == [
        {"label": "🐈"},
        {"label": "cat", "month": "01"},
    ]


def test_rows_of_vectors_bear_the_values(write: Write, tmp_path: Path) -> None:
    root = write("label=cat/month=__HIVE_DEFAULT_PARTITION__", vectors(id=[1, 2]))
    tables = list_tables([str(root)], pytest.fail)
    listing, _ = list_vectors(open_store(tmp_path), "listing", tables, 8)
    units = cut_vectors(open_store(tmp_path), listing, "units", tables)
    store = open_store(tmp_path)
    assert len(units) == 1
    [found] = read_rows(piece_of(store, units, 0), units.table(store, 0))
    assert found.batch is not None
    assert found.batch.select(["manifest_id", "label", "month"]).to_pylist() == [
        {"manifest_id": 1, "label": "cat", "month": None},
        {"manifest_id": 2, "label": "cat", "month": None},
    ]


@pytest.mark.parametrize(
    ("folder", "column", "told"),
    [
        ("year=5", [5, 5], False),
        ("year=05", [5, 5], False),
        ("year=5", ["5", "5"], False),
        ("year=5", [5, 6], True),
        ("year=5", [6, 6], True),
        ("year=5", [5, None], True),
        ("year=__HIVE_DEFAULT_PARTITION__", pa.array([None, None], pa.int8()), False),
        ("year=__HIVE_DEFAULT_PARTITION__", [1, None], True),
    ],
)
def test_a_tables_own_column_of_vectors_counts(
    folder: str, column: Any, told: bool, write: Write
) -> None:
    root, said = write(folder, vectors(year=column)), list[str]()
    [table] = list_tables([str(root)], said.append)
    assert (dict(table.partitions), table.metadata) == ({}, {"year": "year"})
    words = f"own column year counts, and not its folder's name {folder}, "
    assert [words in line for line in said] == [True] * told


def test_a_table_moved_to_another_partition_has_another_version(write: Write) -> None:
    root = write("label=cat", vectors())
    [before] = list_tables([str(root)], pytest.fail)
    (root / "label=cat").rename(root / "label=dog")
    [after] = list_tables([str(root)], pytest.fail)
    assert before.file.version == after.file.version
    assert before.version != after.version
