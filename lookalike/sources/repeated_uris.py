"""Which rows of some tables bear a uri that an earlier row bears.

Every uri becomes a digest of 16 bytes (two rows of ten billion would meet by chance once in 10^18
times); rows are dealt out by its first bits, and each partition is sorted by itself.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

DIGESTS = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), ("row", pa.int64())])
"""A digest's halves, and the number of the row."""
PARTITION_ROWS = 4_000_000
"""Compared at once, of about 100 bytes each."""

Rows = npt.NDArray[np.int64]


def uri_digests(uris: pa.Array, rows: Rows) -> pa.Table:
    """Uris (n,), none of them null, with the numbers of their rows (n,), as rows of `DIGESTS`."""
    blake2b = hashlib.blake2b
    texts = uris.cast(pa.large_binary()).to_pylist()
    joined = b"".join([blake2b(text, digest_size=16).digest() for text in texts])
    halves = np.frombuffer(joined, dtype="<u8").reshape(-1, 2)
    return pa.table([halves[:, 0], halves[:, 1], rows], schema=DIGESTS)


def digest_partitions(digests: pa.Table, count: int) -> Rows:
    """Which of `count` partitions each row falls to, (n,)."""
    high = digests["high"].to_numpy()
    found: Rows = ((high >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)
    return found


def repeats(digests: pa.Table) -> Rows:
    """Numbers of the rows, ascending, that are not the first of their digest.

    Rows come in the order of their numbers.
    """
    high, low, row = (column.to_numpy() for column in digests.columns)
    order = np.argsort(high, kind="stable")
    alike = high[order][1:] == high[order][:-1]
    if (alike & (low[order][1:] != low[order][:-1])).any():  # digests with a half in common
        order = np.lexsort((row, low, high))
        alike = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    found: Rows = np.sort(row[order][1:][alike])
    return found
