"""Which rows are equal: by their vectors, and by the values of a column that pairs share."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.copies.tiles import Rows
from lookalike.distances import Vectors

Values = npt.NDArray[np.uint64]


def distinct(rows: Rows, keys: Values) -> Rows:
    """The first of rows (n,) with equal keys (n, 2), in order."""
    return rows[np.sort(np.unique(keys, axis=0, return_index=True)[1])]


def keys_of(vectors: Vectors, values: Values) -> npt.NDArray[np.uint64]:
    """Hashes (n, 2): equal where vector and value are."""
    rows = np.ascontiguousarray(vectors, dtype="<f4").view(np.uint8)
    hashes = [
        blake2b(row.data, digest_size=16, key=value).digest()
        for row, value in zip(rows, map(bytes, values.astype("<u8")[:, None]), strict=True)
    ]
    return np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(-1, 2)


def values_of(column: pa.ChunkedArray) -> Values:
    """A number for each cell (n,), equal where the cells are; null is a value, too."""
    if pa.types.is_null(column.type):
        return np.zeros(len(column), dtype=np.uint64)
    coded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    words = [repr(value).encode() for value in coded.dictionary.to_pylist()]
    codes = [int.from_bytes(blake2b(word, digest_size=8).digest(), "big") for word in words]
    places: npt.NDArray[np.intp] = coded.indices.to_numpy(zero_copy_only=False)
    return np.array(codes, dtype=np.uint64)[places]
