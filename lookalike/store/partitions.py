"""Partitions of names, by a hash: what belongs together meets in one, and one fits memory.

A table of a hundred million names does not fit in memory, but a part of it does. The leading bits
of its CRC-32 say to which part a name belongs. So when a ledger grows, each of its parts is split
in two, and when it shrinks, two neighbouring parts are joined; no row moves anywhere else.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

PARTITION_ROWS = 1 << 19
"""The most rows that a partition of names has on average: some 200 MB in memory."""
PARTITION_BYTES = 256 << 20
"""The same for the bytes of its rows, where they are known."""

Hashes = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int64]


def uri_hashes(column: pa.Array | pa.ChunkedArray) -> Hashes:
    """CRC-32 of the UTF-8 of each name: (n,) strings -> (n,) uint32."""
    names = column.cast(pa.binary()).to_pylist()
    return np.fromiter(map(zlib.crc32, names), dtype=np.uint32, count=len(names))


def uri_partitions(column: pa.Array | pa.ChunkedArray, count: int) -> Numbers:
    """Which of `count` (a power of two) partitions each name falls to: (n,) -> (n,) int64."""
    return (uri_hashes(column).astype(np.int64) * count) >> 32


def partition_count(rows: int, size: int = 0) -> int:
    """How many partitions names are dealt out to: a power of two.

    Args:
        rows: Names in all.
        size: Roughly the bytes that they and what belongs to them take in memory; 0 if unknown.
    """
    least = max(1, -(-rows // PARTITION_ROWS), -(-size // PARTITION_BYTES))
    return 1 << (least - 1).bit_length()
