"""Parts: the entries that one encode task made, before they are grouped by list into index shards.

A part is a file of `lookalike.ivf.shard_files` in layout columns: all codes, then all ids, both in
order of (list, id). The entries of any range of lists are therefore two slices of the file, one of
codes and one of ids. Parts are read by such slices, wherever they lie, so that memory is that of
the slices, and a task that wants a few lists fetches no whole parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lookalike.distances import Ids
from lookalike.errors import UnreachableError, one_line
from lookalike.ivf.fast_scan import Codes
from lookalike.ivf.shard_files import (
    Counts,
    Write,
    damaged,
    data_start,
    padded,
    stored_header,
    write_head,
)
from lookalike.store.index_header import HEADER_BYTES, ShardHeader
from lookalike.store.objects import Store


def write_part(
    header: ShardHeader, sizes: Counts, codes: Iterable[Codes], ids: Ids, write: Write
) -> None:
    """Write a part through the caller's `write`, whose errors come out unchanged.

    Args:
        header: Of layout columns.
        sizes: (nlist,), entries of each list.
        codes: (m, code_size) in pieces, in order of (list, id).
        ids: (rows,) in the same order.
        write: Takes bytes-like objects.

    Raises:
        ValueError: What is given is not what the header says.
    """
    if header.layout != "columns":
        raise ValueError(f"a part has layout columns, got {header.layout}, that of shard files")
    if header.rows != len(ids):
        raise ValueError(f"{header.rows:,} rows announced, {len(ids):,} ids given")
    write_head(header, sizes, write)
    written = 0
    for piece in codes:
        write(np.ascontiguousarray(piece).reshape(-1))
        written += piece.size
    wanted = header.rows * header.code_size
    if written != wanted:
        raise ValueError(f"{wanted:,} bytes of codes announced, {written:,} given")
    write(bytes(int(padded(written)) - written))
    write(np.ascontiguousarray(ids, dtype="<i8").view(np.uint8))


@dataclass(frozen=True)
class Part:
    """A part file whose length is that of its header's rows."""

    store: Store
    path: str
    header: ShardHeader

    def sizes(self, first: int, last: int) -> tuple[int, Counts]:
        """Where the lists [first, last) begin, in entries, and their sizes (last - first,)."""
        begin = max(0, first - 1)
        table = (HEADER_BYTES + 4 * begin, 4 * (last - begin))
        ends = np.frombuffer(self._read(table)[0], "<u4").astype(np.int64)
        start = int(ends[0]) if first and len(ends) else 0
        sizes = np.diff(ends[1:] if first else ends, prepend=start)
        complete = last < self.header.nlist or not len(ends) or ends[-1] == self.header.rows
        if (sizes < 0).any() or start + int(sizes.sum()) > self.header.rows or not complete:
            raise damaged(self._name, f"{self.header.rows:,} rows, its lists are not of them")
        return start, sizes

    def ids(self, start: int, count: int) -> Ids:
        """Ids (count,) of the entries from `start` on."""
        return np.frombuffer(self._read(self._ids(start, count))[0], "<i8")

    def entries(self, start: int, count: int) -> tuple[Codes, Ids]:
        """Codes (count, code_size) and ids (count,) of the entries from `start` on."""
        size, begin = self.header.code_size, data_start(self.header)
        codes, ids = self._read((begin + size * start, size * count), self._ids(start, count))
        return np.frombuffer(codes, np.uint8).reshape(count, size), np.frombuffer(ids, "<i8")

    def _ids(self, start: int, count: int) -> tuple[int, int]:
        header = self.header
        begin = data_start(header) + int(padded(header.rows * header.code_size))
        return begin + 8 * start, 8 * count

    def _read(self, *ranges: tuple[int, int]) -> list[bytes]:
        try:
            return self.store.read_ranges(self.path, ranges)
        except UnreachableError:
            raise
        except OSError as error:
            raise damaged(self._name, one_line(error)) from error

    @property
    def _name(self) -> str:
        return self.store.shown(self.path)


def open_part(store: Store, path: str, trained: str, code_size: int, nlist: int) -> Part:
    """Check a part against its length and its trained index; see `stored_header`.

    Raises:
        RequestError: It is damaged, or was made with another trained index.
    """
    header, length = stored_header(store, path, trained, code_size, nlist)
    rows = header.rows
    wanted = data_start(header) + int(padded(rows * code_size)) + 8 * rows
    if header.layout != "columns" or header.lists != nlist or length != wanted:
        raise damaged(
            store.shown(path),
            f"{header.layout}, {header.lists:,} lists, {length:,} bytes; a part of {rows:,} rows "
            f"has columns, {nlist:,} lists, {wanted:,} bytes",
        )
    return Part(store, path, header)
