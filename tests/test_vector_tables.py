from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.errors import RequestError
from lookalike.sources.vector_tables import find_dim, list_tables, metadata_schema
from lookalike.store import storage
from tests.vector_files import COMPONENTS, embedding, write_vectors

VECTORS = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)


def tables_of(*specs: Path | str) -> Any:
    said: list[str] = []
    tables = list_tables([str(spec) for spec in specs], said.append)
    assert all(" is left out: bytes are not carried" in line for line in said)
    return tables


# --- what is a table --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", COMPONENTS)
@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
def test_every_type_of_vectors(tmp_path: Path, kind: str, dtype: str) -> None:
    path = write_vectors(tmp_path / "a.parquet", VECTORS, group=20, kind=kind, dtype=dtype)
    [table] = tables_of(path)
    assert (table.file.uri, table.groups, table.rows) == (str(path), (20, 20, 10), 50)
    assert table.dim == (6 if kind == "fixed" else 0)
    assert table.kind == COMPONENTS[dtype]
    assert find_dim([table]) == 6


def test_files_folders_and_globs(tmp_path: Path) -> None:
    a = write_vectors(tmp_path / "in" / "a.parquet", VECTORS)
    b = write_vectors(tmp_path / "in" / "deep" / "b.parquet", VECTORS)
    c = write_vectors(tmp_path / "c.pq", VECTORS)
    odd = write_vectors(tmp_path / "in" / "_temporary.parquet", VECTORS)
    (tmp_path / "in" / "_SUCCESS").touch()
    notes: list[str] = []
    found = list_tables([str(tmp_path / "in"), str(c), str(a)], notes.append)
    assert [table.file.uri for table in found] == [str(a), str(b), str(c)]
    [note] = notes
    assert note.startswith(f"{tmp_path}/in: 2 files are no .parquet, for example ")
    found = list_tables([str(tmp_path / "*" / "*.parquet")], pytest.fail)
    assert [table.file.uri for table in found] == [str(odd), str(a)]


def test_remote_tables(tmp_path: Path) -> None:
    root = f"mock://{tmp_path.name.replace('_', '-')}"
    fs, _ = storage.filesystem(root)
    fs.create_dir("data", recursive=True)
    with fs.open_output_stream("data/t.parquet") as stream:
        stream.write(write_vectors(tmp_path / "t.parquet", VECTORS).read_bytes())
    for spec in (f"{root}/data", f"{root}/data/t.parquet", f"{root}/data/*"):
        [table] = tables_of(spec)
        assert (table.file.uri, table.rows) == (f"{root}/data/t.parquet", 50)


def test_metadata_columns(tmp_path: Path) -> None:
    more = {
        "label": list(range(50)),
        "id": ["x"] * 50,
        "thumbnail": [b"jpeg"] * 50,
        "tags": [[1, 2]] * 50,
        "word": pa.array(["y"] * 50).dictionary_encode(),
        "when": pa.array([0] * 50, pa.timestamp("ns")),
        "image": [{"bytes": b"", "path": ""}] * 50,
    }
    one = write_vectors(tmp_path / "1.parquet", VECTORS, metadata=more)
    two = write_vectors(tmp_path / "2.parquet", VECTORS, metadata={"label": ["a"] * 50})
    tables = tables_of(one, two)
    assert tables[0].metadata == {
        "label": "label",
        "id": "manifest_id",
        "tags": "tags",
        "word": "word",
        "when": "when",
    }
    assert {column.name: str(column.type) for column in metadata_schema(tables)} == {
        "label": "string",
        "manifest_id": "string",
        "tags": "list<element: int64>",
        "word": "string",
        "when": "timestamp[ns]",
    }


def strings(*values: Any) -> pa.Array:
    return pa.array(values, pa.string())


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"url": strings("a"), "embedding": embedding(VECTORS[:1])},
            "needs the columns uri and embedding, it has url, embedding; rename .* is the uri",
        ),
        (
            {"uri": strings("a"), "vector": embedding(VECTORS[:1])},
            "needs the columns uri and embedding, it has uri, vector; rename .* is the embedding",
        ),
        (
            {"uri": [1], "embedding": embedding(VECTORS[:1])},
            "the column uri must be string, it is int64; cast it",
        ),
        (
            {"uri": strings("a"), "embedding": [[1, 2]]},
            r"must be a list .* of float16, float32 or float64, it is list<.*int64>; cast it",
        ),
        ({"uri": strings("a"), "embedding": [1.5]}, "it is double; cast it"),
        (
            {
                "uri": strings("a"),
                "embedding": embedding(VECTORS[:1]),
                "id": [1],
                "manifest_id": [2],
            },
            "two columns would have one name",
        ),
    ],
)
def test_wrong_columns(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    write_vectors(tmp_path / "good.parquet", VECTORS)
    pq.write_table(pa.table(columns), tmp_path / "wrong.parquet")
    with pytest.raises(RequestError, match=rf"^{tmp_path}/wrong\.parquet: .*{message}"):
        tables_of(tmp_path)


def test_what_is_no_table(tmp_path: Path) -> None:
    for spec, message in (
        ("no such", "no such file or folder"),
        (".", "no Parquet files there"),
        ("*.parquet", "no Parquet files there; nothing to index"),
    ):
        with pytest.raises(RequestError, match=message):
            tables_of(tmp_path / spec)
    path = write_vectors(tmp_path / "t.parquet", VECTORS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RequestError, match=rf"^{path}: not readable as Parquet: .*leave it out"):
        tables_of(tmp_path)
    (tmp_path / "gone.parquet").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RequestError, match=r"gone\.parquet: No such file"):
        tables_of(tmp_path / "g*.parquet")


# --- the dimension ----------------------------------------------------------------------------


def test_the_dimension_is_that_of_most(tmp_path: Path) -> None:
    rows = [[1.0] * 3] * 2 + [[1.0] * 4] * 3 + [None, []] * 9
    mixed = write_vectors(tmp_path / "a.parquet", pa.array(rows, pa.list_(pa.float32())))
    assert find_dim(tables_of(mixed)) == 4
    fixed = write_vectors(tmp_path / "b.parquet", VECTORS)
    assert find_dim(tables_of(mixed, fixed)) == 6
    many = write_vectors(tmp_path / "c.parquet", np.ones((20_000, 2)))
    assert find_dim(tables_of(many, *[fixed] * 3)) == 2


def test_without_vectors_there_is_no_dimension(tmp_path: Path) -> None:
    rows = pa.array([None, []], pa.list_(pa.float32()))
    for rows_there, column in ((2, rows), (0, embedding(VECTORS[:0]))):
        path = write_vectors(tmp_path / "a.parquet", column)
        with pytest.raises(RequestError, match=f"no vector in the first {rows_there} rows"):
            find_dim(tables_of(path))
