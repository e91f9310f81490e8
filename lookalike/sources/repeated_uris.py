"""Which rows of some tables bear a uri that an earlier row bears, in bounded memory.

Every uri becomes a digest of 16 bytes (two rows of ten billion would meet by chance once in 10^18
times), dealt out to files by its first bits; each file is then sorted by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.sources.vector_tables import UNREADABLE, VectorTable, open_table

_PART_ROWS = 4_000_000  # compared at once, of about 100 bytes each
_MOST_PARTS = 256  # files open at once
_BATCH = 65_536
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])

Rows = npt.NDArray[np.int64]


def find_repeats(
    tables: Sequence[VectorTable], folder: Path, seen: Callable[[int], None] = lambda rows: None
) -> tuple[Rows, Rows]:
    """Rows whose uri an earlier row bears, and the first such row of each.

    Rows are counted through all tables. What has no uri, or cannot be read, repeats nothing.

    Args:
        tables: In the order that says which is earlier.
        folder: For intermediate files; it is made, and left empty.
        seen: Told how many rows have been read.

    Returns:
        Two arrays (n,), the first ascending.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = sum(table.rows for table in tables)
    parts = min(_MOST_PARTS, max(1, -(-rows // _PART_ROWS)))
    paths = [folder / f"uris-{part:05d}.bin" for part in range(parts)]
    with ExitStack() as stack:
        files = [stack.enter_context(open(path, "wb")) for path in paths]
        for records in _digests(tables):
            which = (records["high"] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
            for part, file in enumerate(files):
                (records if parts == 1 else records[which == part]).tofile(file)
            seen(len(records))
    found = [_repeats(np.fromfile(path, dtype=_RECORD)) for path in paths]
    for path in paths:
        path.unlink()
    repeats = np.concatenate([pair[0] for pair in found])
    order = np.argsort(repeats)
    return repeats[order], np.concatenate([pair[1] for pair in found])[order]


def _digests(tables: Sequence[VectorTable]) -> Iterator[npt.NDArray[np.void]]:
    start = 0
    for table in tables:
        try:
            with open_table(table.file.uri) as file:
                group_start = start
                for group, count in enumerate(table.groups):
                    yield from _group(file, group, group_start)
                    group_start += count
        except UNREADABLE:
            pass  # gone since it was listed: its rows will be rejected, each with the reason
        start += table.rows


def _group(file: pq.ParquetFile, group: int, start: int) -> Iterator[npt.NDArray[np.void]]:
    try:
        batches = file.iter_batches(_BATCH, row_groups=[group], columns=["uri"], use_threads=False)
        for batch in batches:
            uris = batch.column(0)
            there = np.flatnonzero(uris.is_valid().to_numpy(zero_copy_only=False))
            yield _records(uris.drop_null(), start + there)
            start += len(uris)
    except UNREADABLE:
        return  # what cannot be read repeats nothing; its rows will be rejected


def _records(uris: pa.Array, rows: Rows) -> npt.NDArray[np.void]:
    blake2b = hashlib.blake2b
    texts = uris.cast(pa.large_binary()).to_pylist()
    joined = b"".join([blake2b(text, digest_size=16).digest() for text in texts])
    records = np.empty(len(rows), dtype=_RECORD)
    digests = np.frombuffer(joined, dtype="<u8").reshape(-1, 2)
    records["high"], records["low"], records["row"] = digests[:, 0], digests[:, 1], rows
    return records


def _repeats(records: npt.NDArray[np.void]) -> tuple[Rows, Rows]:
    order = np.lexsort((records["row"], records["low"], records["high"]))
    records = records[order]
    again = np.zeros(len(records), dtype=bool)
    again[1:] = (records["high"][1:] == records["high"][:-1]) & (
        records["low"][1:] == records["low"][:-1]
    )
    first = np.maximum.accumulate(np.where(again, 0, np.arange(len(records))))
    rows: Rows = records["row"].astype(np.int64)
    return rows[again], rows[first[again]]
