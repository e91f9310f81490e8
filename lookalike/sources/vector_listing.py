"""The listing of tables of vectors: one row for each of theirs, of which only the uri is read.

A row is listed under its uri. One that has none, that cannot be read, or whose uri an earlier row
bears is listed under a name of its own, `<table>#row=<number>`. Its version is that of the table
with the row's number, so that a table that did not change is not read again.

    tables -> tasks: a part of the listing each; digests of its uris -> partitions of digests
    partitions: rows that repeat a uri, if there are any                -> tasks: parts written anew
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.sources.listing import Listing, listing_schema
from lookalike.sources.units import key_ranges
from lookalike.sources.vector_pieces import Piece, cut_pieces
from lookalike.sources.vector_tables import UNREADABLE, VectorTable, open_table
from lookalike.store.attempts import Part, Record, finished, record_of, recorded
from lookalike.store.exchange import Dealing, Reference, taken
from lookalike.store.files import HashedName
from lookalike.store.objects import Store

_PART_ROWS = 262_144
_BATCH = 65_536
_ROW_WEIGHT = 120  # bytes in memory of a row, beside its uri
_ROW = "#row="
_SCHEMA = listing_schema(pa.schema([]))
_SAID_ONCE = ["bytes", "problem", "_container", "_group"]  # columns worth a dictionary
_NUMBERS = pa.schema([("row", pa.int64())])

DIGESTS = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), ("row", pa.int64())])
"""A digest's halves, and the number of the row."""
PARTITION_ROWS = 4_000_000
"""Digests compared at once, of about 100 bytes each."""

LISTED, REPEATED, RENAMED = "listed", "repeated", "renamed"
"""Folders of the records: of tasks, of partitions, and of tasks with rows that are renamed."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class VectorListing:
    """How the rows of tables are listed, into files below `folder`.

    Attributes:
        folder: Of the run's scratch, relative to the store.
        tasks: Row groups of each task, in the order that says which row of a uri is the first.
        firsts: Number of the first row of each task, through all tables; and last of all rows.
        size: Bytes of a vector as it will be stored.
    """

    folder: str
    tasks: tuple[tuple[Piece, ...], ...]
    firsts: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, tables: Sequence[VectorTable], folder: str, size: int) -> VectorListing:
        """Plan it."""
        tasks: list[list[Piece]] = []
        rows = _PART_ROWS
        for piece in (piece for table in tables for piece in cut_pieces(table, _PART_ROWS)):
            if rows + piece.rows > _PART_ROWS:
                tasks.append([])
                rows = 0
            tasks[-1].append(piece)
            rows += piece.rows
        counts = (sum(piece.rows for piece in task) for task in tasks)
        return cls(folder, tuple(map(tuple, tasks)), tuple(accumulate(counts, initial=0)), size)

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return self.firsts[-1]

    @property
    def parts(self) -> int:
        """Partitions of digests."""
        return max(1, -(-self.rows // PARTITION_ROWS))

    def deal(self, number: int, store: Store) -> Record:
        """List the rows of one task, and deal digests of their uris out."""
        return _list(self._part(LISTED, number), store, self)

    def take(self, number: int, pieces: Sequence[Reference], store: Store) -> Record:
        """Find the rows of one partition that repeat a uri."""
        return _repeated(self._part(REPEATED, number), store, self, pieces)

    def deal_repeated(self, number: int, store: Store) -> Record:
        """The rows that `take` found, as it dealt them out to tasks."""
        return _found(self._part("found", number), store, self)

    def take_repeated(self, number: int, pieces: Sequence[Reference], store: Store) -> Record:
        """List the rows of one task anew, some of them under names of their own."""
        return _rename(self._part(RENAMED, number), store, self, pieces)

    def finish(self, store: Store, renamed: Mapping[int, Record]) -> Listing:
        """The listing, when all is done; `renamed` are the records of `take_repeated`."""
        tasks = range(len(self.tasks))
        listed = finished(store, [self._part(LISTED, number).done for number in tasks])
        records = [renamed.get(number, listed[number]) for number in tasks]
        paths = tuple(str(part["path"]) for record in records for part in record["parts"])
        return Listing(paths, self.rows, sum(record["weight"] for record in listed))

    def _part(self, step: str, number: int) -> Part:
        return Part(f"{self.folder}/{step}", number)


@recorded
def _list(part: Part, store: Store, plan: VectorListing) -> Record:
    parts, row = _Parts(store, plan, part.number), plan.firsts[part.number]
    name = HashedName(f"{plan.folder}/digests/{part.number:06d}", ".arrow")
    with Dealing(store, name, plan.parts) as dealing:
        for piece in plan.tasks[part.number]:
            for rows in _rows(piece):
                named = np.flatnonzero(_named(rows.uris))
                first = row + rows.first - piece.first_row
                digests = uri_digests(rows.uris.take(pa.array(named)), first + named)
                dealing.write(digests, key_ranges(digests["high"].to_numpy(), plan.parts))
                parts.add(_listed(piece, rows, plan.size))
            row += piece.rows
    parts.flush()
    return {**dealing.record(), "parts": parts.written, "weight": parts.weight}


@recorded
def _repeated(part: Part, store: Store, plan: VectorListing, pieces: Sequence[Reference]) -> Record:
    digests = taken(store, pieces, DIGESTS)
    rows = repeats(digests)
    which = np.searchsorted(plan.firsts, rows, side="right") - 1
    name = HashedName(f"{plan.folder}/repeats/{part.number:06d}", ".arrow")
    with Dealing(store, name, len(plan.tasks)) as dealing:
        dealing.write(pa.table([rows], schema=_NUMBERS), which)
    return {"rows": digests.num_rows, "repeats": len(rows), "found": dealing.record()}


@recorded
def _found(part: Part, store: Store, plan: VectorListing) -> Record:
    record = record_of(store, Part(f"{plan.folder}/{REPEATED}", part.number))
    none = {"dealt": {"path": ""}, "rows": 0, "pieces": []}  # no uri fell to the partition
    return dict(record["found"]) if record else none


@recorded
def _rename(part: Part, store: Store, plan: VectorListing, pieces: Sequence[Reference]) -> Record:
    [record] = finished(store, [Part(f"{plan.folder}/{LISTED}", part.number).done])
    numbers = taken(store, pieces, _NUMBERS)["row"].to_numpy()
    row, parts = plan.firsts[part.number], _Parts(store, plan, part.number)
    for written in record["parts"]:
        rows = pq.read_table(store.parquet(str(written["path"])))
        repeated = pa.array(np.isin(np.arange(row, row + rows.num_rows), numbers))
        offsets = rows["_offset"].cast(pa.string())
        own = pc.binary_join_element_wise(rows["_container"], offsets, _ROW)
        uris = pc.if_else(repeated, own, rows["uri"])
        parts.add(rows.set_column(0, _SCHEMA.field(0), uris))
        parts.flush()
        row += rows.num_rows
    return {"rows": len(numbers), "parts": parts.written}


class _Parts:
    """Rows of a task in, files of some hundred thousand out."""

    def __init__(self, store: Store, plan: VectorListing, task: int) -> None:
        self._store, self._stem = store, f"{plan.folder}/{task:06d}"
        self._waiting: list[pa.Table] = []
        self.written: list[Record] = []
        self.weight = 0

    def add(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        self.weight += rows["uri"].nbytes + rows.num_rows * _ROW_WEIGHT
        if sum(table.num_rows for table in self._waiting) >= _PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            name = HashedName(f"{self._stem}-{len(self.written):03d}", ".parquet")
            with self._store.write(name) as pending:
                pq.write_table(
                    pa.concat_tables(self._waiting),
                    pending.file,
                    compression="zstd",
                    use_dictionary=_SAID_ONCE,
                )
            self.written.append(pending.finished.to_json())
            self._waiting.clear()


# --- uris that repeat -------------------------------------------------------------------------
#
# Every uri becomes a digest of 16 bytes (two rows of ten billion would meet by chance once in 10^18
# times); rows are dealt out by its first bits, and each partition is sorted by itself.


def uri_digests(uris: pa.Array, rows: Rows) -> pa.Table:
    """Uris (n,), none of them null, with the numbers of their rows (n,), as rows of `DIGESTS`."""
    blake2b = hashlib.blake2b
    texts = uris.cast(pa.large_binary()).to_pylist()
    joined = b"".join([blake2b(text, digest_size=16).digest() for text in texts])
    halves = np.frombuffer(joined, dtype="<u8").reshape(-1, 2)
    return pa.table([halves[:, 0], halves[:, 1], rows], schema=DIGESTS)


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


# --- rows -------------------------------------------------------------------------------------


def row_names(table: str, rows: npt.NDArray[np.int64]) -> pa.Array:
    """`<table>#row=<number>`, for rows without a uri of their own."""
    return joined(f"{table}{_ROW}", rows)


def joined(text: str, numbers: npt.NDArray[np.int64]) -> pa.Array:
    """A text before each of some numbers."""
    return pc.binary_join_element_wise(text, pa.array(numbers).cast(pa.string()), "")


class _Rows(NamedTuple):
    """Rows of a row group: the number of the first in the table, and their uris, null or not.

    `lost` are rows of which nobody knows what their uris are.
    """

    group: int
    first: int
    uris: pa.Array
    lost: bool = False


def _rows(piece: Piece) -> Iterator[_Rows]:
    """All rows of some row groups; those that cannot be read have no uris."""
    first = piece.first_row
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_table(piece.uri))
        except UNREADABLE:  # why, its rows will say when their vectors are read
            file = None
        for group, count in enumerate(piece.groups, piece.first_group):
            yield from _group(file, group, first, first + count)
            first += count


def _group(file: pq.ParquetFile | None, group: int, row: int, end: int) -> Iterator[_Rows]:
    with suppress(*UNREADABLE):  # as above
        for batch in _batches(file, group):
            uris = batch.column(0)
            if pa.types.is_dictionary(uris.type):
                uris = uris.dictionary_decode()
            yield _Rows(group, row, uris.cast(pa.string()))
            row += len(uris)
    for start in range(row, end, _BATCH):
        yield _Rows(group, start, pa.nulls(min(_BATCH, end - start), pa.string()), lost=True)


def _batches(file: pq.ParquetFile | None, group: int) -> Iterator[pa.RecordBatch]:
    if file is None:
        return iter(())
    batches: Iterator[pa.RecordBatch] = file.iter_batches(
        _BATCH, row_groups=[group], columns=["uri"], use_threads=False
    )
    return batches


def _listed(piece: Piece, rows: _Rows, size: int) -> pa.Table:
    """The listing's rows; a uri that is null or empty gives way to the row's own name."""
    count = len(rows.uris)
    numbers = np.arange(rows.first, rows.first + count)
    uris, named = rows.uris, _named(rows.uris)
    if not named.all():
        uris = pc.if_else(pa.array(named), uris, row_names(piece.uri, numbers))
    return pa.table(
        {
            "uri": uris,
            "bytes": np.full(count, size),
            "version": joined(f"{piece.listed_as}+", numbers),
            "problem": pa.repeat("", count),
            "_container": pa.repeat(piece.uri, count),
            "_offset": numbers,
            "_group": np.full(count, rows.group),
            "_hides": pa.repeat(pa.scalar("" if rows.lost else None, pa.string()), count),
        },
        schema=_SCHEMA,
    )


def _named(uris: pa.Array) -> npt.NDArray[np.bool_]:
    """Which uris are neither null nor empty, (n,)."""
    named = pc.greater(pc.binary_length(uris), 0).fill_null(False)
    return np.asarray(named.to_numpy(zero_copy_only=False))
