"""Dealing rows out to files by a hash, so that what belongs together meets in bounded memory.

A table of a hundred million names does not fit in memory, but a part of it does. The leading bits
of its CRC-32 say to which part a name belongs. So when a ledger grows, each of its parts is split
in two, and when it shrinks, two neighbouring parts are joined; no row moves anywhere else.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.store.files import make_folder, remove_tree

PARTITION_ROWS = 1 << 19
"""The most rows that a partition of names has on average: some 200 MB in memory."""
PARTITION_BYTES = 256 << 20
"""The same for the bytes of its rows, where they are known."""
_BUFFER_BYTES = 64 << 20

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


class Spill:
    """Rows on their way to `count` files, in a folder that is dropped and made anew.

    Some megabytes are held, however many rows and files there are, and one file is open at a time.
    Rows keep their order within a file. The files are Arrow streams, one after the other: unlike
    Parquet they need no footer, which would have to be held for all of them until the end.

        with Spill(folder, count, schema) as spill:
            spill.write(table, which)  # for each table
        spill.read(0)
    """

    def __init__(self, folder: Path, count: int, schema: pa.Schema) -> None:
        """Nothing is written before the context is entered."""
        self.folder, self.count, self.schema = folder, count, schema
        self._tables: list[pa.Table] = []
        self._which: list[Numbers] = []
        self._bytes = 0

    def __enter__(self) -> Spill:
        """Make the folder, without what was in it."""
        remove_tree(self.folder)
        make_folder(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()

    def write(self, table: pa.Table, which: npt.NDArray[np.integer]) -> None:
        """Append rows: row i to file `which[i]`, 0 <= which[i] < count.

        Raises:
            ValueError: There is no such file, or not one number for each row.
        """
        if len(which) != table.num_rows:
            raise ValueError(
                f"{self.folder}: each row needs a file's number: {table.num_rows:,} rows, "
                f"{len(which):,} numbers"
            )
        if not len(which):
            return
        if which.min() < 0 or which.max() >= self.count:
            raise ValueError(
                f"{self.folder}: files are numbered from 0 to {self.count - 1:,}, got numbers from "
                f"{which.min():,} to {which.max():,}"
            )
        self._tables.append(table.select(self.schema.names).cast(self.schema))
        self._which.append(which.astype(np.int64))
        self._bytes += table.nbytes
        if self._bytes >= _BUFFER_BYTES:
            self.flush()

    def path(self, number: int) -> Path | None:
        """A finished file: Arrow streams, see `read`; None when no row fell to it."""
        path = self._path(number)
        return path if path.exists() else None

    def tables(self, number: int) -> Iterator[pa.Table]:
        """The rows of one finished file, some at a time."""
        if self.path(number) is None:
            return
        with pa.OSFile(str(self._path(number))) as file:
            while file.tell() < file.size():
                yield pa.ipc.open_stream(file).read_all()

    def read(self, number: int) -> pa.Table:
        """All rows of one finished file, in the order in which they were written."""
        return pa.concat_tables([self.schema.empty_table(), *self.tables(number)])

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.arrow"

    def flush(self) -> None:
        """Write what is held, so that all rows so far can be read."""
        if not self._tables:
            return
        which = np.concatenate(self._which)
        order = np.argsort(which, kind="stable")
        table, which = pa.concat_tables(self._tables).take(pa.array(order)), which[order]
        self._tables, self._which, self._bytes = [], [], 0
        starts = np.flatnonzero(np.diff(which, prepend=-1))
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        for start, end in zip(starts, [*starts[1:], len(which)], strict=True):
            with (
                open(self._path(int(which[start])), "ab") as file,
                pa.ipc.new_stream(file, self.schema, options=options) as stream,
            ):
                stream.write_table(table.slice(start, end - start))
