"""Rows of embedding shards by id: vectors from where they lie, names and metadata decoded.

A vector is read at its address (see `shard_format`), without a Parquet decoder: a batch of ids is
one sorted pass over the files. Files stay mapped, as many as may be open; what they keep resident
is given back to the system from time to time.
"""

from __future__ import annotations

import mmap
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.cells import cells, has_times, to_rows
from lookalike.sources.columns import merge_columns
from lookalike.store.objects import Store
from lookalike.store.recent import Recent
from lookalike.store.shard_format import (
    COLUMNS,
    Addresses,
    Ids,
    Vectors,
    file_numbers,
    read_addresses,
    row_numbers,
)

_MAPPED_FILES = 16_384  # at most; to map a file anew costs as much as ten reads
_OPEN_FILES = 48  # for decoding
_KNOWN_FILES = 65536  # of which the addresses are kept
_TABLE_BYTES = 64 << 20  # of decoded names and metadata
_FEW_ROWS = 8  # of one table, whose cells are read one by one: a call of Arrow's costs as much
_RESIDENT_BYTES = 512 << 20  # of mapped files, unless told otherwise
_MOST_MAPPED = 2 << 20  # by one read
_STATM = "/proc/self/statm"


@dataclass(frozen=True)
class _Layout:
    """What a footer says of a file, without the file.

    Attributes:
        columns: Names of all columns but the vector.
        described: Those of the name and the metadata.
        ends: The row after each row group, (groups,) int64.
    """

    columns: tuple[str, ...]
    described: tuple[str, ...]
    ends: Ids


def _most_maps() -> int:
    """How many files to keep mapped: half of those that the process may have open, at most."""
    may_open = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MAPPED_FILES if may_open < 0 else min(_MAPPED_FILES, max(1, may_open // 2))


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
        self._addresses: Recent[int, Addresses] = Recent(_KNOWN_FILES)
        self._maps: Recent[int, mmap.mmap] = Recent(_most_maps())
        self._open: Recent[int, pq.ParquetFile] = Recent(_OPEN_FILES)
        self._layouts: Recent[int, _Layout] = Recent(_KNOWN_FILES)
        self._tables: Recent[tuple[int, int, tuple[str, ...]], pa.Table]
        self._tables = Recent(_TABLE_BYTES, lambda table: int(table.nbytes))
        self._floor = _mapped_bytes()  # when pages were dropped last
        self._room, self._unchecked = self._resident, 0  # bytes, and reads since it was known

    # --- vectors ------------------------------------------------------------------------------

    def vectors(self, ids: Ids) -> Vectors:
        """Exact vectors (n, d) float32 of the ids (n,), in their order, read in one sorted pass."""
        ids = np.asarray(ids, dtype=np.int64)
        output: Vectors | None = None
        for positions, file_no in _by_file(ids):
            block = self._read(file_no, row_numbers(ids[positions]))
            if output is None:
                output = np.empty((len(ids), block.shape[1]), dtype=np.float32)
            output[positions] = block
        return np.empty((0, 0), dtype=np.float32) if output is None else output

    def _read(self, file_no: int, rows: Ids) -> npt.NDArray[Any]:
        """Vectors (n, d) of rows (n,) of one file, as stored."""
        with self._lock:
            addresses, mapped = self._addresses.get(file_no), self._maps.get(file_no)
        if addresses is None:
            addresses = self._addresses_of(self._files[file_no])
            if addresses is None:
                return self._decoded(file_no, rows)
            with self._lock:
                self._addresses.put(file_no, addresses)
        if int(rows.max()) >= addresses.rows:
            raise IndexError(
                f"{self._store.shown(self._files[file_no])}: no row {int(rows.max())}, it has "
                f"{addresses.rows}"
            )
        if mapped is None:
            mapped = self._store.mapped(self._files[file_no])
            if mapped is None:
                return self._asked_for(file_no, addresses, rows)
            with self._lock:
                self._maps.put(file_no, mapped)
        found = _gather(mapped, addresses, rows)
        self._give_back(len(rows))
        return found

    def _addresses_of(self, path: str) -> Addresses | None:
        found = self._store.stat(path)
        if found is None:
            raise FileNotFoundError(f"{self._store.shown(path)}: no such file")
        return read_addresses(self._store.parquet(path), self._store.shown(path), found.bytes)

    def _asked_for(self, file_no: int, addresses: Addresses, rows: Ids) -> npt.NDArray[Any]:
        """The same of a file that is elsewhere: only those rows, each once, are asked for."""
        distinct, places = np.unique(rows, return_inverse=True)
        starts, size = addresses.offsets(distinct).tolist(), addresses.row_bytes
        parts = self._store.read_ranges(self._files[file_no], [(start, size) for start in starts])
        found = np.frombuffer(b"".join(parts), addresses.dtype).reshape(len(distinct), -1)
        return found[places.reshape(-1)]

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
                maps = list(self._maps.values.values())
            for one in maps:
                one.madvise(mmap.MADV_DONTNEED)
            mapped = self._floor = _mapped_bytes()  # other files: libraries, lists of the index
        self._room = max(self._floor + self._resident - mapped, self._resident // 8)

    def _decoded(self, file_no: int, rows: Ids) -> Vectors:
        """Vectors of a file without addresses."""
        output: Vectors | None = None
        for positions, table, inner in self._tables_of(file_no, rows, ("embedding",)):
            column = table["embedding"].combine_chunks()
            flat = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
            if output is None:
                output = np.empty((len(rows), flat.shape[1]), dtype=np.float32)
            output[positions] = flat[inner]
        if output is None:
            path = self._store.shown(self._files[file_no])
            raise ValueError(f"{path}: it has no rows, {len(rows):,} were asked for")
        return output

    # --- the other columns --------------------------------------------------------------------

    def rows(
        self, ids: Iterable[int], columns: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """The columns named (by default all but the vector) of each id, in their order."""
        wanted = np.asarray(list(ids), dtype=np.int64)
        chosen = None if columns is None else tuple(columns)
        return self._cells(wanted, lambda layout: layout.columns if chosen is None else chosen)

    def described(self, ids: Ids) -> list[dict[str, Any]]:
        """The uri and the metadata columns of each id (n,), in their order."""
        return self._cells(ids, lambda layout: layout.described)

    def _cells(
        self, ids: Ids, columns: Callable[[_Layout], tuple[str, ...]]
    ) -> list[dict[str, Any]]:
        output: list[dict[str, Any]] = [{} for _ in range(len(ids))]
        for positions, file_no in _by_file(ids):
            names = columns(self._layout(file_no))
            rows = row_numbers(ids[positions])
            for inside, table, inner in self._tables_of(file_no, rows, names):
                found = _dicts(table, inner)
                for position, row in zip(positions[inside].tolist(), found, strict=True):
                    output[position] = row
        return output

    def metadata_schema(self) -> pa.Schema:
        """Columns that are not this module's own, of all files together."""
        with self._lock:
            found = [self._file(number).schema_arrow for number in self._files]
        return merge_columns(
            pa.schema([column for column in one if column.name not in COLUMNS]) for one in found
        )

    def _layout(self, file_no: int) -> _Layout:
        with self._lock:
            layout = self._layouts.get(file_no)
            if layout is None:
                file = self._file(file_no)
                footer, names = file.metadata, file.schema_arrow.names
                groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
                layout = _Layout(
                    tuple(name for name in names if name != "embedding"),
                    tuple(name for name in names if name == "uri" or name not in COLUMNS),
                    np.cumsum(groups, dtype=np.int64),
                )
                self._layouts.put(file_no, layout)
        return layout

    def _tables_of(
        self, file_no: int, rows: Ids, columns: tuple[str, ...]
    ) -> Iterator[tuple[slice, pa.Table, Ids]]:
        """For each row group asked of: where in `rows` (ascending), its table, and rows of that."""
        ends = self._layout(file_no).ends
        groups = np.searchsorted(ends, rows, side="right")
        for start, stop in _runs(groups):
            group = int(groups[start])
            key = (file_no, group, columns)
            with self._lock:  # one file is read by one thread at a time
                table = self._tables.get(key)
                if table is None:
                    file = self._file(file_no)
                    table = file.read_row_group(group, columns=list(columns), use_threads=False)
                    self._tables.put(key, table)
            first = int(ends[group - 1]) if group else 0
            yield slice(start, stop), table, rows[start:stop] - first

    def _file(self, file_no: int) -> pq.ParquetFile:
        file = self._open.get(file_no)
        if file is None:
            file = pq.ParquetFile(self._store.parquet(self._files[file_no]), memory_map=False)
            self._open.put(file_no, file)
        return file


def _by_file(ids: Ids) -> Iterator[tuple[npt.NDArray[np.intp], int]]:
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


def _dicts(table: pa.Table, rows: Ids) -> list[dict[str, Any]]:
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
