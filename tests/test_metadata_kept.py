"""Metadata from a table to an answer: nothing cut, nothing dropped, by the command itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.pipelines.cli import main

NS = 1_704_067_200_123_456_789  # 2024-01-01 00:00:00.123456789 in UTC
COLUMNS = {
    "at": pa.array([NS, NS + 1, None], pa.timestamp("ns", "Europe/Berlin")),
    "took": pa.array([1_500_000_001] * 3, pa.duration("ns")),
    "hash": pa.array([b"\x00\xff", b"\x01\xff", b"\x02\xff"], pa.binary(2)),
    "big": pa.array([2**53 + 1] * 3),
    "boxes": [[{"x": 1.5}], [], None],
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "vectors/year=2024/label=cat%20%26%20dog/part.parquet"
    path.parent.mkdir(parents=True)
    vectors = np.eye(3, dtype=np.float32).tolist()
    pq.write_table(pa.table({"uri": ["a", "b", "c"], "embedding": vectors, **COLUMNS}), path)
    np.save(tmp_path / "q.npy", np.eye(3, dtype=np.float32)[:1])
    return path


def test_metadata_come_out_as_they_went_in(
    table: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> str:
        capfd.readouterr()
        assert main([*words, "--store", str(tmp_path / "store")]) == 0, capfd.readouterr().err
        return capfd.readouterr().out

    def ask(*words: str) -> list[dict[str, Any]]:
        out = run("query", "--vectors", str(tmp_path / "q.npy"), "--json", *words)
        return [json.loads(line) for line in out.splitlines()]

    run("index", "--embeddings", str(tmp_path / "vectors"))
    first = ask("-k", "1")[0]
    assert {name: first[name] for name in [*COLUMNS, "year", "label"]} == {
        "at": "2024-01-01T01:00:00.123456789+01:00",
        "took": 1.500000001,
        "hash": "00ff",
        "big": 2**53 + 1,
        "boxes": [{"x": 1.5}],
        "year": 2024,
        "label": "cat & dog",
    }
    found = ask(
        "--where", "at > '2024-01-01T00:00:00.123456789Z' and hash = '01FF' and year = 2024"
    )
    assert [row["uri"] for row in found] == ["b"]
    output = tmp_path / "out.parquet"
    run("query", "--vectors", str(tmp_path / "q.npy"), "--output", str(output))
    answers = pq.read_table(output).sort_by("uri")
    assert answers.select([*COLUMNS]).equals(pa.table(COLUMNS))
    assert answers["label"].to_pylist() == ["cat & dog"] * 3
    table.parent.rename(table.parent.with_name("label=dog"))  # which changes no time of the table
    run("index", "--embeddings", str(tmp_path / "vectors"))
    assert {row["label"] for row in ask()} == {"dog"}


@pytest.mark.parametrize("kind", [pa.string_view(), pa.list_(pa.string_view())])
def test_text_that_is_written_as_views_is_text(
    kind: pa.DataType, table: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    column = pa.array([["x"], None, None] if pa.types.is_list(kind) else ["x", None, None], kind)
    pq.write_table(pq.read_table(table, partitioning=None).append_column("note", column), table)
    store = tmp_path / "store"
    assert main(["index", "--embeddings", str(tmp_path / "vectors"), "--store", str(store)]) == 0
    query = ["query", "--store", str(store), "--vectors", str(tmp_path / "q.npy"), "--json"]
    capfd.readouterr()
    assert main([*query, "--where", "note is null", "-k", "1"]) == 0
    assert json.loads(capfd.readouterr().out)["uri"] == "b"
