"""Vectors of embedding shards by id, from where they lie.

A vector is read at its address (see `shard_format`), without a Parquet decoder: a batch of ids is
one sorted pass over the files. A folder's files stay mapped, as many as may be open; what they keep
resident is given back to the system from time to time. Of files that are elsewhere only footers
and those vectors are asked for, of all files of a batch at once. A file of which so much is asked
that all of it would have cost less is fetched whole, once, for as long as the reader lives.
"""

from __future__ import annotations

import mmap
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Vectors
from lookalike.errors import StoreWriteError
from lookalike.store.column_reader import ColumnReader, Positions, by_file
from lookalike.store.objects import Store
from lookalike.store.ranges import GAP, coalesce
from lookalike.store.recent import Recent
from lookalike.store.shard_format import Addresses, row_numbers

_MAPPED_FILES = 16_384  # at most; to map a file anew costs as much as ten reads
_RESIDENT_BYTES = 512 << 20  # of mapped files, unless told otherwise
_WHOLE_BYTES = 8 << 30  # of files elsewhere, on this machine's disk
_MOST_MAPPED = 2 << 20  # by one read
_STATM = "/proc/self/statm"


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


class VectorReader(ColumnReader):
    """Vectors, and columns, of rows by id; safe to use from several threads."""

    def __init__(self, store: Store, files: Mapping[int, str], resident: int = 0) -> None:
        """Make a reader; no file is opened yet.

        Args:
            store: The store's root.
            files: Paths relative to it, by file number.
            resident: Bytes of mapped files that the process may show as resident (512 MiB). They
                are the system's to take back, but to map a page anew costs as much as reading.
        """
        super().__init__(store, files)
        self._resident = resident or _RESIDENT_BYTES
        self._maps: Recent[int, mmap.mmap] = Recent(_most_maps())
        self._whole: Recent[int, mmap.mmap] = Recent(_WHOLE_BYTES, len)  # of files elsewhere
        self._spent: dict[int, int] = {}  # bytes of requests, each with what it costs by itself
        self._fetching = Lock()
        self._floor = _mapped_bytes()  # when pages were dropped last
        self._room, self._unchecked = self._resident, 0  # bytes, and reads since it was known

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
        parts = list(by_file(ids))
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
