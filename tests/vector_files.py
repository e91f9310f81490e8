"""Parquet tables of vectors of every kind, for the tests of vectors made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

COMPONENTS = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}


def embedding(vectors: npt.NDArray[Any], kind: str = "fixed", dtype: str = "float32") -> pa.Array:
    """A column of vectors (n, d): a fixed_size_list, list or large_list of a float type."""
    flat = pa.array(vectors.astype(dtype).reshape(-1))
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    offsets = np.arange(len(vectors) + 1) * vectors.shape[1]
    if kind == "list":
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)


def write_vectors(
    path: Path,
    vectors: npt.NDArray[Any] | pa.Array,
    uris: list[str | None] | None = None,
    *,
    group: int = 1 << 20,
    metadata: dict[str, Any] | None = None,
    **kinds: str,
) -> Path:
    """Write a table; the uris are named after the file unless given."""
    column = vectors if isinstance(vectors, pa.Array) else embedding(vectors, **kinds)
    uris = [f"{path.stem}/{i}" for i in range(len(column))] if uris is None else uris
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"uri": pa.array(uris, pa.string()), "embedding": column, **(metadata or {})})
    pq.write_table(table, path, row_group_size=group)
    return path
