"""The file format of index entries: writing, checking and mapping such files, without Faiss.

One file holds the inverted lists [first_list, last_list) of one trained index (trained index):

    4,096 bytes      a line of JSON, padded with spaces (ShardHeader)
    uint32 x lists   where each list's entries end, counted in entries; padded to 64 bytes
    the entries, by (list, id), in one of three layouts:
      plain          per list, from a multiple of 64 bytes: codes, then ids (int64)
      blocks32       the same with codes packed by 32 for Faiss's FastScan (`pack_blocks`)
      columns        all codes, padded to 64 bytes, then all ids (`lookalike.ivf.part_files`)

All numbers are little endian. docs/format.md describes the same format for other readers.

As an example, take three lists of 3, 0 and 40 entries with codes of 12 bytes, in layout blocks32.
The table of lists holds 3, 3, 43 and is padded, so the entries begin at byte 4,160. The first list
has room for 32 codes (384 bytes) and then 3 ids (24 bytes), padded to 448 bytes. The second takes
no bytes. The third has room for 64 codes (768 bytes) and then 40 ids (320 bytes), 1,088 bytes in
all. The file ends at byte 4,160 + 448 + 1,088 = 5,696.

The format has no checksum of its own, since manifests hold the sha256 of each file. But before
anything is mapped, the length of the file is compared with the length that its table of lists
implies, so that no read can go beyond the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids
from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.ivf.fast_scan import BLOCK, Codes, pack_blocks, unpack_blocks
from lookalike.store.index_header import HEADER_BYTES, ShardHeader, parse_header
from lookalike.store.objects import Store

Counts = npt.NDArray[np.int64]
Write = Callable[[Any], object]

_ALIGNMENT = 64
_ENTRIES = 1 << 15  # of a list, in memory at a time; whole blocks


def capacities(sizes: npt.ArrayLike, layout: str, code_size: int) -> Counts:
    """For how many codes each list has room in its file: its entries, rounded up.

    They are rounded up to whole blocks of 32 in layout blocks32. In the other layouts they are
    rounded up until the codes take a multiple of 8 bytes, so that the ids behind them are aligned.
    """
    step = BLOCK if layout == "blocks32" else 8 // math.gcd(8, code_size)
    return -(-np.asarray(sizes, dtype=np.int64) // step) * step


def list_offsets(header: ShardHeader, sizes: npt.ArrayLike) -> Counts:
    """Where each list starts in its file, and where the last one ends: (lists + 1,) int64."""
    taken = capacities(sizes, header.layout, header.code_size) * header.code_size
    taken = padded(taken + 8 * np.asarray(sizes, dtype=np.int64))
    start = data_start(header)
    return np.concatenate([[start], start + np.cumsum(taken)])


def padded(size: Any) -> Any:
    """The next multiple of 64."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def write_shard(
    header: ShardHeader,
    sizes: npt.ArrayLike,
    runs: Iterable[tuple[Codes, Ids]],
    write: Write,
) -> None:
    """Write a shard file of layout plain or blocks32 through the caller's `write`.

    The caller's `write` hashes what passes through and reports a full disk, neither of which
    Faiss's own writer does. Exceptions that it raises are passed on unchanged.

    Args:
        header: Its rows and lists are compared with what comes.
        sizes: (lists,), entries of each list.
        runs: Codes (m, code_size) and ids (m,) of consecutive lists, each run of whole lists, in
            order of (list, id).
        write: Takes bytes-like objects.

    Raises:
        ValueError: What comes is not what the header and the sizes say.
    """
    if header.layout == "columns":
        raise ValueError("a shard file has layout plain or blocks32, got columns, that of parts")
    counts = np.asarray(sizes, dtype=np.int64)
    write_head(header, counts, write)
    ends = np.cumsum(counts)
    done = rows = 0
    for codes, ids in runs:
        rows += len(ids)
        last = int(np.searchsorted(ends, rows, side="right"))
        if rows != (whole := int(ends[last - 1]) if last else 0):
            raise ValueError(
                f"a run ends within list {last:,}: {rows:,} rows so far, lists end at {whole:,}"
            )
        write(_lists_data(header, counts[done:last], codes, ids))
        done = last
    if rows != header.rows:
        raise ValueError(f"{header.rows:,} rows announced, {rows:,} given")


def _lists_data(header: ShardHeader, sizes: Counts, codes: Codes, ids: Ids) -> Codes:
    """The bytes of consecutive lists, each padded to a multiple of 64.

    Args:
        header: Gives layout and bytes of a code.
        sizes: (lists,), entries of each list.
        codes: (m, code_size) of all their entries.
        ids: (m,) of the same.
    """
    size = header.code_size
    # Where the codes of each list begin, in places for codes, and where in what was given.
    places = capacities(sizes, header.layout, size)
    starts = np.cumsum(places) - places
    own = np.cumsum(sizes) - sizes
    if header.layout == "blocks32":
        # Codes are spread out to whole blocks of each list, with zeros behind the last entry, so
        # that one call packs the blocks of all lists.
        spread = np.zeros((int(places.sum()), size), dtype=np.uint8)
        spread[np.arange(len(ids)) + np.repeat(starts - own, sizes)] = codes
        flat, starts, lengths = pack_blocks(spread).reshape(-1), starts * size, places * size
    else:
        flat, starts, lengths = codes.reshape(-1), own * size, sizes * size
    # Where each list begins in the output, in bytes.
    taken = padded(places * size + 8 * sizes)
    begins = np.cumsum(taken) - taken
    output = np.zeros(int(taken.sum()), dtype=np.uint8)
    numbers = np.ascontiguousarray(ids, dtype="<i8").view(np.uint8)
    there = np.flatnonzero(sizes)
    # Codes and ids of a list are copied as two slices, which is faster than indexing single bytes.
    for begin, start, length, id_at, first, count in zip(
        begins[there].tolist(),
        starts[there].tolist(),
        lengths[there].tolist(),
        (begins + places * size)[there].tolist(),
        (8 * own)[there].tolist(),
        (8 * sizes)[there].tolist(),
        strict=True,
    ):
        output[begin : begin + length] = flat[start : start + length]
        output[id_at : id_at + count] = numbers[first : first + count]
    return output


def write_head(header: ShardHeader, sizes: Counts, write: Write) -> None:
    """Write what comes before the entries.

    Raises:
        ValueError: The sizes are not what the header says, or too many rows for one file.
    """
    if len(sizes) != header.lists:
        raise ValueError(f"{header.lists:,} lists announced, {len(sizes):,} sizes given")
    if (rows := int(sizes.sum())) != header.rows:
        raise ValueError(f"{header.rows:,} rows announced, {rows:,} in lists")
    if rows >= 1 << 32:  # the table of lists has 32 bits for each
        raise ValueError(f"a file holds fewer than {1 << 32:,} rows, got {rows:,}")
    write(header.to_bytes())
    table = np.cumsum(sizes).astype("<u4").tobytes()
    write(table.ljust(int(padded(HEADER_BYTES + len(table))) - HEADER_BYTES, b"\0"))


def read_header(path: Path) -> ShardHeader:
    """The header of a shard file.

    Raises:
        RequestError: It is no shard file of this version.
    """
    try:
        with open(path, "rb") as file:
            block = file.read(HEADER_BYTES)
    except OSError as error:
        raise RequestError(f"{path}: the index shard cannot be read: {error.strerror}") from error
    return parse_header(str(path), block)


@dataclass(frozen=True)
class ShardFile:
    """A shard file, mapped; its table of lists has been compared with its length.

    Attributes:
        sizes: (lists,) int64, entries of each list.
        data: (bytes,) uint8, the whole file, read from disk as it is touched.
    """

    path: Path
    header: ShardHeader
    sizes: Counts
    data: Codes

    @cached_property
    def offsets(self) -> Counts:
        """See `list_offsets`."""
        return list_offsets(self.header, self.sizes)

    def ids(self) -> Iterator[Ids]:
        """Ids of each list, of a plain or blocks32 file."""
        places = capacities(self.sizes, self.header.layout, self.header.code_size)
        begins = self.offsets[:-1] + places * self.header.code_size
        for begin, size in zip(begins.tolist(), self.sizes.tolist(), strict=True):
            yield self.data[begin : begin + 8 * size].view("<i8")


def list_entries(
    file: ShardFile, number: int | None = None
) -> Iterator[tuple[int, Callable[[], Codes], Ids]]:
    """The entries of one list of a plain or blocks32 file, or of all, some at a time.

    Yields:
        The list, what reads the entries' codes (n, code_size), and their ids (n,).
    """
    header, size = file.header, file.header.code_size
    own = range(header.first_list, header.last_list) if number is None else [number]
    offsets = file.offsets
    for one in own:
        at = one - header.first_list
        count, begin = int(file.sizes[at]), int(offsets[at])
        room = int(capacities(count, header.layout, size)) * size
        ids = file.data[begin + room : begin + room + 8 * count].view("<i8")
        codes = file.data[begin : begin + room]
        for first in range(0, count, _ENTRIES):
            some = ids[first : first + _ENTRIES]

            def read(codes: Codes = codes, first: int = first, n: int = len(some)) -> Codes:
                if header.layout == "blocks32":
                    whole = -(-n // BLOCK) * BLOCK
                    part = codes[first * size : (first + whole) * size].reshape(-1, size, BLOCK)
                    return unpack_blocks(part)[:n]
                return codes[first * size : (first + n) * size].reshape(n, size)

            yield one, read, some


def check_header(
    name: str, header: ShardHeader, length: int, trained: str, code_size: int, nlist: int
) -> None:
    """Hold the header of a shard file against its length and its trained index.

    Raises:
        RequestError: It is no shard file, or was made with another trained index.
    """
    if header.template != trained:
        raise RequestError(
            f"{name}: the shard was made with trained index {header.template}, the trained "
            f"index here is {trained}; their codes mean different vectors: index again"
        )
    if (header.code_size, header.nlist) != (code_size, nlist):
        raise damaged(
            name,
            f"codes of {header.code_size} bytes in {header.nlist} lists, its trained index has "
            f"{code_size} and {nlist}",
        )
    if length < data_start(header):
        raise damaged(
            name, f"{length:,} bytes, its list of lists alone ends at {data_start(header):,}"
        )


def stored_header(
    store: Store, path: str, trained: str, code_size: int, nlist: int
) -> tuple[ShardHeader, int]:
    """Header (see `check_header`) and bytes of a store's shard file, of which no more is read.

    Raises:
        RequestError: It is no shard file, or was made with another trained index.
    """
    name = store.shown(path)
    try:
        length = store.size(path)
        [block] = store.read_ranges(path, [(0, min(length, HEADER_BYTES))])
    except UnreachableError:
        raise
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise RequestError(f"{name}: the index shard cannot be read: {reason}") from error
    header = parse_header(name, block)
    check_header(name, header, length, trained, code_size, nlist)
    return header, length


def data_start(header: ShardHeader) -> int:
    """Where the entries begin."""
    return int(padded(HEADER_BYTES + 4 * header.lists))


def map_shard(path: Path, trained: str, code_size: int, nlist: int) -> ShardFile:
    """Map a shard file of layout plain or blocks32 into memory; see `check_header`.

    Raises:
        RequestError: It is damaged, or was made with another trained index.
    """
    header = read_header(path)
    check_header(str(path), header, path.stat().st_size, trained, code_size, nlist)
    data: Codes = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    sizes = list_sizes(path, header, data[HEADER_BYTES : HEADER_BYTES + 4 * header.lists])
    wanted = int(list_offsets(header, sizes)[-1])
    if len(data) != wanted:
        raise damaged(path, f"{len(data):,} bytes, its lists need {wanted:,}")
    return ShardFile(path, header, sizes, data)


def list_sizes(name: str | Path, header: ShardHeader, table: Any) -> Counts:
    """Entries of each list (lists,) of a plain or blocks32 file, from the table after its header.

    Raises:
        RequestError: They are not those that the header tells of.
    """
    ends = np.frombuffer(table, "<u4").astype(np.int64)
    sizes: Counts = np.diff(ends, prepend=0)
    if header.layout == "columns" or (sizes < 0).any() or int(sizes.sum()) != header.rows:
        raise damaged(
            name, f"{header.layout}, {header.rows:,} rows, its lists hold {int(sizes.sum()):,}"
        )
    return sizes


def damaged(name: str | Path, found: str) -> RequestError:
    """The error for a file that is not as it was written."""
    return RequestError(f"{name}: damaged: {found}; run: lookalike verify")
