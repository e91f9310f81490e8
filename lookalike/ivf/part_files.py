"""Parts: the entries that one encode task made, before they are grouped by list into index shards.

A part is a file of `lookalike.ivf.shard_files` in layout columns: all codes, then all ids, both in
order of (list, id). The entries of any range of lists are therefore two slices of the file, one of
codes and one of ids. Parts are read by such slices and not mapped, so that memory is that of the
slices, and a task can go through thousands of parts without keeping them open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.ivf.shard_files import (
    Codes,
    Counts,
    Write,
    check_header,
    damaged,
    data_start,
    padded,
    write_head,
)
from lookalike.metrics import Ids
from lookalike.store.index_header import HEADER_BYTES, ShardHeader


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
    """A part file whose length is that of its header's rows.

    Attributes:
        path: The file.
        header: Its first block.
    """

    path: Path
    header: ShardHeader

    def sizes(self, first: int, last: int) -> tuple[int, Counts]:
        """Where the lists [first, last) begin, in entries, and their sizes (last - first,)."""
        begin = max(0, first - 1)
        ends = self._read(HEADER_BYTES + 4 * begin, "<u4", last - begin).astype(np.int64)
        start = int(ends[0]) if first and len(ends) else 0
        sizes = np.diff(ends[1:] if first else ends, prepend=start)
        complete = last < self.header.nlist or not len(ends) or ends[-1] == self.header.rows
        if (sizes < 0).any() or start + int(sizes.sum()) > self.header.rows or not complete:
            raise damaged(self.path, f"{self.header.rows:,} rows, its lists are not of them")
        return start, sizes

    def ids(self, start: int, count: int) -> Ids:
        """Ids (count,) of the entries from `start` on."""
        header = self.header
        begin = data_start(header) + int(padded(header.rows * header.code_size))
        return np.asarray(self._read(begin + 8 * start, "<i8", count), dtype=np.int64)

    def codes(self, start: int, count: int) -> Codes:
        """Codes (count, code_size) of the entries from `start` on."""
        size = self.header.code_size
        flat: Codes = self._read(data_start(self.header) + size * start, "u1", size * count)
        return flat.reshape(count, size)

    def _read(self, offset: int, dtype: str, count: int) -> npt.NDArray[Any]:
        found = np.fromfile(self.path, dtype=dtype, count=count, offset=offset)
        if len(found) != count:
            raise damaged(self.path, f"it ends within the {count:,} numbers from byte {offset:,}")
        return found


def open_part(path: Path, template: str, code_size: int, nlist: int) -> Part:
    """Check a part against its length and its template; see `check_header`.

    Raises:
        RequestError: It is damaged, or was made with another template.
    """
    header = check_header(path, template, code_size, nlist)
    rows, length = header.rows, path.stat().st_size
    wanted = data_start(header) + int(padded(rows * code_size)) + 8 * rows
    if header.layout != "columns" or header.lists != nlist or length != wanted:
        raise damaged(
            path,
            f"{header.layout}, {header.lists:,} lists, {length:,} bytes; a part of {rows:,} rows "
            f"has columns, {nlist:,} lists, {wanted:,} bytes",
        )
    return Part(path, header)
