"""Rows of embedding shards by id: vectors from where they lie, names and metadata decoded.

A vector is read at its address (see `shard_format`), without a Parquet decoder: a batch of ids is
one sorted pass over the files. A folder's files stay mapped, as many as may be open; what they keep
resident is given back to the system from time to time. Of files that are elsewhere only footers,
those vectors and those columns of a row group are asked for, of all files of a batch at once. A
file of which so much is asked that all of it would have cost less is fetched whole, once, for as
long as the reader lives.
"""

from __future__ import annotations

import mmap
import os
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.cells import cells, has_times, to_rows
from lookalike.errors import StoreWriteError
from lookalike.store.columns import merge_columns
from lookalike.store.objects import Store
from lookalike.store.ranges import GAP, coalesce, parts_file
from lookalike.store.recent import Recent
from lookalike.store.shard_format import (
    COLUMNS,
    Addresses,
    Ids,
    Vectors,
    addresses_of,
    column_ranges,
    file_numbers,
    row_numbers,
)

Positions = npt.NDArray[np.intp]
Row = Mapping[str, Any]
"""Columns of a row by name; those of metadata are of any type."""

_MAPPED_FILES = 16_384  # at most; to map a file anew costs as much as ten reads
_KNOWN_FILES = 65536  # of which the addresses are kept
_FOOTER_BYTES = 32 << 20  # of footers, as they are stored
_GROUPS_AT_ONCE = 32  # row groups to ask for, and to hold, at a time
_TABLE_BYTES = 64 << 20  # of decoded names and metadata
_FEW_ROWS = 8  # of one table, whose cells are read one by one: a call of Arrow's costs as much
_RESIDENT_BYTES = 512 << 20  # of mapped files, unless told otherwise
_WHOLE_BYTES = 8 << 30  # of files elsewhere, on this machine's disk
_MOST_MAPPED = 2 << 20  # by one read
_STATM = "/proc/self/statm"


@dataclass(frozen=True)
class _File:
    """What a footer says of a file, without the footer.

    Attributes:
        addresses: Of its vectors, where it has any.
        columns: Names of all columns but the vector.
        described: Those of the name and the metadata.
        ends: The row after each row group, (groups,) int64.
    """

    addresses: Addresses | None
    columns: tuple[str, ...]
    described: tuple[str, ...]
    ends: Ids


class _Group(NamedTuple):
    """Some columns of one row group of a file."""

    file_no: int
    number: int
    columns: tuple[str, ...]


Columns = Callable[[_File], tuple[str, ...]]


def _most_maps() -> int:
    """How many files to keep mapped: half of those that the process may open still, at most."""
    may_open = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if may_open < 0:
        return _MAPPED_FILES
    try:
        opened = len(os.listdir("/dev/fd"))
    except OSError:
        opened = 0
    return min(_MAPPED_FILES, max(1, (may_open - opened) // 2))


def _mapped_bytes() -> int:
    """Resident bytes of mapped files in this process; 0 where the system does not tell."""
    try:
        with open(_STATM, "rb") as file:
            return int(file.read().split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0


class VectorReader:
    """Rows by id from the shards of a store; safe to use from several threads."""

    def __init__(self, store: Store, files: Mapping[int, str], resident: int = 0) -> None:
        """Make a reader; no file is opened yet.

        Args:
            store: The store's root.
            files: Paths relative to it, by file number.
            resident: Bytes of mapped files that the process may show as resident (512 MiB). They
                are the system's to take back, but to map a page anew costs as much as reading.
        """
        self._resident = resident or _RESIDENT_BYTES
        self._store, self._files = store, dict(files)
        self._lock = Lock()  # of what follows; reading goes on beside it
        self._known: Recent[int, _File] = Recent(_KNOWN_FILES)
        self._footers: Recent[int, pq.FileMetaData]
        self._footers = Recent(_FOOTER_BYTES, lambda footer: int(footer.serialized_size))
        self._maps: Recent[int, mmap.mmap] = Recent(_most_maps())
        self._whole: Recent[int, mmap.mmap] = Recent(_WHOLE_BYTES, len)  # of files elsewhere
        self._spent: dict[int, int] = {}  # bytes of requests, each with what it costs by itself
        self._fetching = Lock()
        self._tables: Recent[_Group, pa.Table]
        self._tables = Recent(_TABLE_BYTES, lambda table: int(table.nbytes))
        self._floor = _mapped_bytes()  # when pages were dropped last
        self._room, self._unchecked = self._resident, 0  # bytes, and reads since it was known

    # --- vectors ------------------------------------------------------------------------------

    def vectors(self, ids: Ids) -> Vectors:
        """Exact vectors (n, d) float32 of the ids (n,), in their order, read in one sorted pass."""
        ids = np.asarray(ids, dtype=np.int64)
        output: Vectors | None = None
        for positions, block in self._blocks(ids):
            if output is None:
                output = np.empty((len(ids), block.shape[1]), dtype=np.float32)
            output[positions] = block
        return np.empty((0, 0), dtype=np.float32) if output is None else output

    def _blocks(self, ids: Ids) -> Iterator[tuple[Positions, npt.NDArray[Any]]]:
        """Vectors (n, d) as stored, and which of the ids these are of."""
        parts = list(_by_file(ids))
        known = self._files_of(file_no for _, file_no in parts)
        elsewhere: list[tuple[Positions, int, Addresses]] = []
        for positions, file_no in parts:
            addresses, rows = known[file_no].addresses, row_numbers(ids[positions])
            if addresses is None:
                yield from self._decoded(ids, positions)
                continue
            if int(rows.max()) >= addresses.rows:
                raise IndexError(
                    f"{self._store.shown(self._files[file_no])}: no row {int(rows.max())}, it has "
                    f"{addresses.rows}"
                )
            mapped = self._mapped(file_no) or self._fetched(file_no, addresses, rows)
            if mapped is None:
                elsewhere.append((positions, file_no, addresses))
                continue
            yield positions, _gather(mapped, addresses, rows)
            self._give_back(len(rows))
        yield from self._asked_for(ids, elsewhere)

    def _mapped(self, file_no: int) -> mmap.mmap | None:
        with self._lock:
            mapped = self._maps.get(file_no)
        if mapped is None:
            mapped = self._store.mapped(self._files[file_no])
            if mapped is not None:
                with self._lock:
                    self._maps.put(file_no, mapped)
        return mapped

    def _fetched(self, file_no: int, addresses: Addresses, rows: Ids) -> mmap.mmap | None:
        """The whole of a file that is elsewhere, mapped; None where its parts cost less so far."""
        path, width = self._files[file_no], addresses.row_bytes
        with self._fetching:  # by one thread, for all
            with self._lock:
                mapped = self._whole.get(file_no)
            if mapped is not None:
                return mapped
            spans = coalesce([(at, width) for at in addresses.offsets(np.unique(rows)).tolist()])
            spent = self._spent.get(file_no, 0) + sum(span.count + GAP for span in spans)
            self._spent[file_no] = spent
            if spent < self._store.size(path):
                return None
            self._spent[file_no] = 0
            try:
                file = self._store.once(path)
            except StoreWriteError:  # no room on this machine
                return None
            with open(file, "rb") if isinstance(file, Path) else file as raw:
                mapped = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
            with self._lock:
                self._whole.put(file_no, mapped)
            return mapped

    def _asked_for(
        self, ids: Ids, elsewhere: Sequence[tuple[Positions, int, Addresses]]
    ) -> Iterator[tuple[Positions, npt.NDArray[Any]]]:
        """The same of files that are elsewhere: only those rows, each once, are asked for."""
        wanted, places = [], []
        for positions, file_no, addresses in elsewhere:
            rows, inverse = np.unique(row_numbers(ids[positions]), return_inverse=True)
            starts, size = addresses.offsets(rows).tolist(), addresses.row_bytes
            wanted.append((self._files[file_no], [(start, size) for start in starts]))
            places.append(inverse.reshape(-1))
        found = self._store.read_many(wanted)
        for (positions, _, addresses), own, parts in zip(elsewhere, places, found, strict=True):
            vectors = np.frombuffer(b"".join(parts), addresses.dtype)
            yield positions, vectors.reshape(len(parts), -1)[own]

    def _give_back(self, reads: int) -> None:
        """Let the system drop mapped pages that have been read; it has them in its own cache.

        What a read maps is the system's choice, from a page to 2 MiB around it: so it is asked, as
        often as reads could have used up what was left.
        """
        self._unchecked += reads
        if self._unchecked * _MOST_MAPPED < self._room:
            return
        self._unchecked = 0
        mapped = _mapped_bytes()
        if mapped >= self._floor + self._resident:
            with self._lock:
                maps = [*self._maps.values.values(), *self._whole.values.values()]
            for one in maps:
                one.madvise(mmap.MADV_DONTNEED)
            mapped = self._floor = _mapped_bytes()  # other files: libraries, lists of the index
        self._room = max(self._floor + self._resident - mapped, self._resident // 8)

    def _decoded(self, ids: Ids, positions: Positions) -> Iterator[tuple[Positions, Vectors]]:
        """The same of a file without addresses."""
        for inside, table, inner in self.tables(ids[positions], lambda _: ("embedding",)):
            column = table["embedding"].combine_chunks()
            flat = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
            yield positions[inside], flat[inner]

    # --- the other columns --------------------------------------------------------------------

    def rows(self, ids: Iterable[int], columns: Sequence[str] | None = None) -> list[Row]:
        """The columns named (by default all but the vector) of each id, in their order."""
        wanted = np.asarray(list(ids), dtype=np.int64)
        chosen = None if columns is None else tuple(columns)
        return self._cells(wanted, lambda file: file.columns if chosen is None else chosen)

    def described(self, ids: Ids) -> list[Row]:
        """The uri and the metadata columns of each id (n,), in their order."""
        return self._cells(ids, lambda file: file.described)

    def _cells(self, ids: Ids, columns: Columns) -> list[Row]:
        output: list[Row] = [{} for _ in range(len(ids))]
        for positions, table, inner in self.tables(ids, columns):
            for position, row in zip(positions.tolist(), _dicts(table, inner), strict=True):
                output[position] = row
        return output

    def tables(self, ids: Ids, columns: Columns) -> Iterator[tuple[Positions, pa.Table, Ids]]:
        """The row groups that hold some ids (n,), in order of file and row.

        Args:
            ids: In any order.
            columns: Names of those to read, by what a file has.

        Yields:
            Which of the ids lie in the row group, its table, and the rows of that.
        """
        parts = list(_by_file(ids))
        known = self._files_of(file_no for _, file_no in parts)
        asked: list[tuple[Positions, _Group, Ids]] = []
        for positions, file_no in parts:
            file, rows = known[file_no], row_numbers(ids[positions])
            groups = np.searchsorted(file.ends, rows, side="right")
            for start, stop in _runs(groups):
                number = int(groups[start])
                first = int(file.ends[number - 1]) if number else 0
                group = _Group(file_no, number, columns(file))
                asked.append((positions[start:stop], group, rows[start:stop] - first))
        for start in range(0, len(asked), _GROUPS_AT_ONCE):
            window = asked[start : start + _GROUPS_AT_ONCE]
            tables = self._tables_of([group for _, group, _ in window])
            for (positions, _, rows), table in zip(window, tables, strict=True):
                yield positions, table, rows

    def _tables_of(self, groups: Sequence[_Group]) -> list[pa.Table]:
        with self._lock:
            kept = {group: self._tables.get(group) for group in groups}
        missing = [group for group, table in kept.items() if table is None]
        if missing:
            kept.update(zip(missing, self._read(missing), strict=True))
        return [kept[group] for group in groups]

    def _read(self, groups: Sequence[_Group]) -> Iterator[pa.Table]:
        """Row groups that are not kept yet, asked for together."""
        numbers = list(dict.fromkeys(group.file_no for group in groups))
        known = dict(zip(numbers, self._store.at_once(self._footer, numbers), strict=True))
        footers = [known[group.file_no] for group in groups]
        wanted = [
            (self._files[group.file_no], column_ranges(footer, group.number, group.columns))
            for group, footer in zip(groups, footers, strict=True)
        ]
        found = self._store.read_many(wanted)
        for group, footer, (_, ranges), data in zip(groups, footers, wanted, found, strict=True):
            source = parts_file(ranges, data)
            with pq.ParquetFile(source, metadata=footer, pre_buffer=False) as file:
                columns = list(group.columns)
                table = file.read_row_group(group.number, columns=columns, use_threads=False)
            with self._lock:
                self._tables.put(group, table)
            yield table

    # --- footers --------------------------------------------------------------------------------

    def schemas(self) -> list[pa.Schema]:
        """Those of all files, in their order."""
        return self._store.at_once(
            lambda file_no: self._footer(file_no).schema.to_arrow_schema(), self._files
        )

    def metadata_schema(self) -> pa.Schema:
        """Columns that are not this module's own, of all files together."""
        return merge_columns(
            pa.schema([column for column in one if column.name not in COLUMNS])
            for one in self.schemas()
        )

    def _files_of(self, numbers: Iterable[int]) -> dict[int, _File]:
        """What is known of files; the footers that were not read yet are read together."""
        with self._lock:
            found = {number: self._known.get(number) for number in numbers}
        missing = [number for number, file in found.items() if file is None]
        looked = dict(zip(missing, self._store.at_once(self._look, missing), strict=True))
        with self._lock:
            for number, file in looked.items():
                self._known.put(number, file)
        return {number: file or looked[number] for number, file in found.items()}

    def _look(self, file_no: int) -> _File:
        path, footer = self._files[file_no], self._footer(file_no)
        names = footer.schema.to_arrow_schema().names
        groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        return _File(
            addresses_of(footer, self._store.shown(path), self._store.size(path)),
            tuple(name for name in names if name != "embedding"),
            tuple(name for name in names if name == "uri" or name not in COLUMNS),
            np.cumsum(groups, dtype=np.int64),
        )

    def _footer(self, file_no: int) -> pq.FileMetaData:
        with self._lock:
            footer = self._footers.get(file_no)
        if footer is None:
            footer = pq.read_metadata(self._store.parquet(self._files[file_no]))
            with self._lock:
                self._footers.put(file_no, footer)
        return footer


def _by_file(ids: Ids) -> Iterator[tuple[Positions, int]]:
    """Positions of the ids that share a file, in order of file and row."""
    if not len(ids):
        return
    order = np.argsort(ids, kind="stable")
    numbers = file_numbers(ids[order])
    for start, stop in _runs(numbers):
        yield order[start:stop], int(numbers[start])


def _runs(values: Ids) -> Iterator[tuple[int, int]]:
    """Starts and stops of runs of equal values (n,), one value or more."""
    edges = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return pairwise(edges)


def _dicts(table: pa.Table, rows: Ids) -> Sequence[Row]:
    """Some rows (n,) of a table."""
    if len(rows) > _FEW_ROWS:
        return to_rows(table.take(pa.array(rows)))
    columns = [
        (name, column, has_times(column.type))
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return [
        {
            name: cells(column.slice(row, 1))[0] if times else column[row].as_py()
            for name, column, times in columns
        }
        for row in rows.tolist()
    ]


def _gather(mapped: mmap.mmap, addresses: Addresses, rows: Ids) -> npt.NDArray[Any]:
    """Vectors (n, d) of the rows (n,), as stored.

    The file is seen as one array of rows that start at every byte: so one gather copies rows from
    any addresses, whatever their alignment.
    """
    size = addresses.row_bytes
    everywhere = np.ndarray(
        (len(mapped) - size + 1,), dtype=np.dtype((np.void, size)), buffer=mapped, strides=(1,)
    )
    return everywhere[addresses.offsets(rows)].view(addresses.dtype).reshape(len(rows), -1)
