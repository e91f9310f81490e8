from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.errors import RequestError
from lookalike.sources.query_vectors import read_queries
from lookalike.vector_faults import Rules
from tests.vector_files import COMPONENTS, write_vectors

RULES = Rules(6, "cosine")
VECTORS = np.random.default_rng(0).standard_normal((2500, 6)).astype(np.float32)


def read(path: Path, rules: Rules = RULES) -> tuple[list[str], Any]:
    batches = list(read_queries(str(path), rules))
    assert all(len(names) <= 1024 for names, _ in batches)
    assert all(vectors.dtype == np.float32 for _, vectors in batches)
    names = [name for batch, _ in batches for name in batch]
    return names, np.concatenate([vectors for _, vectors in batches])


@pytest.mark.parametrize("dtype", [*COMPONENTS, ">f4"])
def test_arrays(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "q.npy", VECTORS.astype(dtype))
    names, vectors = read(tmp_path / "q.npy")
    assert names == [f"vector:{i}" for i in range(2500)]
    assert np.array_equal(vectors, VECTORS.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("dtype", COMPONENTS)
@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
def test_tables(tmp_path: Path, kind: str, dtype: str) -> None:
    uris = [f"u{i}" if i % 3 else (None if i % 2 else "") for i in range(2500)]
    path = write_vectors(tmp_path / "q.parquet", VECTORS, uris, kind=kind, dtype=dtype, group=700)
    names, vectors = read(path)
    assert names == [uri or f"vector:{i}" for i, uri in enumerate(uris)]
    assert np.array_equal(vectors, VECTORS.astype(dtype).astype(np.float32))
    pq.write_table(pq.read_table(path, columns=["embedding"]), path)
    assert read(path)[0] == [f"vector:{i}" for i in range(2500)]


@pytest.mark.parametrize(
    ("wrong", "metric", "message"),
    [
        (None, "l2", "row 2000: its embedding is null"),
        ([1.0] * 5, "l2", "row 2000: its embedding has 5 components, the store's have 6"),
        ([1.0] * 5 + [np.nan], "l2", "row 2000: component 5 is nan; all must be finite"),
        ([1.0] * 5 + [1e39], "l2", r"row 2000: component 5 is 1e\+39, more than a float32 holds"),
        ([0.0] * 6, "cosine", "row 2000: all 6 components are 0, which cosine forbids"),
        ([0.0] * 5 + [-1.0], "jaccard", "row 2000: component 5 is -1.0, and jaccard needs"),
        ([2e15] + [0.0] * 5, "l2", r"row 2000: its length is 2e\+15, l2 takes at most 1e\+15"),
    ],
)
def test_a_wrong_row_is_named(
    tmp_path: Path, wrong: list[float] | None, metric: str, message: str
) -> None:
    rows: list[Any] = np.abs(VECTORS).astype(float).tolist()
    rows[2000] = wrong
    path = write_vectors(tmp_path / "q.parquet", pa.array(rows, pa.list_(pa.float64())))
    with pytest.raises(RequestError, match=rf"^{path}: {message}"):
        read(path, Rules(6, metric))
    if wrong and len(wrong) == 6:
        np.save(tmp_path / "q.npy", np.array(rows))
        with pytest.raises(RequestError, match=rf"^{tmp_path}/q.npy: {message}"):
            read(tmp_path / "q.npy", Rules(6, metric))


def test_wrong_files(tmp_path: Path) -> None:
    np.save(tmp_path / "narrow.npy", np.ones((2, 3)))
    np.save(tmp_path / "whole.npy", np.ones((2, 6), int))
    np.save(tmp_path / "flat.npy", np.ones(6))
    (tmp_path / "junk.npy").write_bytes(b"junk")
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    pq.write_table(pa.table({"vector": [[1.0]]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"embedding": ["x"]}), tmp_path / "text.parquet")
    for name, message in (
        ("narrow.npy", r"needs an array \(n, 6\) of floats, it is \(2, 3\) float64"),
        ("whole.npy", r"it is \(2, 6\) int64"),
        ("flat.npy", r"it is \(6,\) float64"),
        ("junk.npy", "no .npy file: it is text"),
        ("junk.parquet", "not readable"),
        ("absent.npy", "no such file"),
        ("other.parquet", "has no column `embedding`; it has vector"),
        ("text.parquet", "must be a list of floats, it is string"),
        ("q.csv", "no such file"),
    ):
        with pytest.raises(RequestError, match=rf"^{tmp_path}/{name}: .*{message}|{message}"):
            read(tmp_path / name)
