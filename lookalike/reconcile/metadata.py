"""Hashes of metadata rows, for whole tables at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.cells import to_rows
from lookalike.store.ledger import metadata_hash

Ids = npt.NDArray[np.int64]


def metadata_hashes(table: pa.Table) -> Ids:
    """`metadata_hash` of each row of a table of metadata columns: (n,) int64.

    Rows that are alike, as those of a table of labels are, are hashed once.
    """
    if not table.num_rows or not table.num_columns:
        return np.zeros(table.num_rows, dtype=np.int64)
    alike = np.zeros(table.num_rows, dtype=np.int64)  # the same number where rows are alike
    first = np.zeros(1, dtype=np.int64)
    for column in table.columns:
        codes = _codes(column.combine_chunks())
        alike = alike * (int(codes.max()) + 1) + codes  # both below the number of rows
        _, first, alike = np.unique(alike, return_index=True, return_inverse=True)
    distinct = to_rows(table.take(pa.array(first)))
    hashes: Ids = np.fromiter(map(metadata_hash, distinct), dtype=np.int64, count=len(distinct))
    return hashes[alike]


def _codes(column: pa.Array) -> Ids:
    """Numbers from 0 on, the same only where the values have the same Python representation."""
    if pa.types.is_floating(column.type):  # 0.0 and -0.0 are equal, and are written differently
        bits = column.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False).view(np.int64)
        column = pc.if_else(column.is_valid(), pa.array(bits), None)
    try:
        indices = column.dictionary_encode(null_encoding="encode").indices
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # lists and the like
        return np.arange(len(column), dtype=np.int64)
    codes: Ids = indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
