"""The listing of tables of vectors: one row for each of theirs, of which only the uri is read.

A row is listed under its uri. One that has none, that cannot be read, or whose uri an earlier row
bears is listed under a name of its own, `<table>#row=<number>`. Its version is that of the table
with the row's number, so that a table that did not change is not read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.sources.listing import Listing, listing_schema
from lookalike.sources.repeated_uris import UriDigests
from lookalike.sources.vector_tables import UNREADABLE, VectorTable, open_table
from lookalike.store.objects import Store

_PART_ROWS = 262_144
_BATCH = 65_536
_ROW_WEIGHT = 120  # bytes in memory of a row, beside its uri
_ROW = "#row="
_SCHEMA = listing_schema(pa.schema([]))
_SAID_ONCE = ["bytes", "problem", "_container", "_group"]  # columns worth a dictionary


def list_vectors(
    store: Store,
    folder: str,
    tables: Sequence[VectorTable],
    size: int,
    seen: Callable[[int], None] = lambda rows: None,
) -> tuple[Listing, int]:
    """Write the listing of all rows of some tables to part files under `store/folder`.

    Args:
        store: The store's root.
        folder: Of the files, relative to it.
        tables: In the order that says which row of a uri is the first.
        size: Bytes of a vector as it will be stored.
        seen: Told how many more rows are listed.

    Returns:
        The listing, and how many rows repeat the uri of an earlier row.
    """
    total = sum(table.rows for table in tables)
    parts = _Parts(store, folder)
    with UriDigests(store.scratch(f"{folder}/uris"), total) as digests:
        start = 0  # of the table, through all of them
        for table in tables:
            for rows in _rows(table):
                named = np.flatnonzero(_named(rows.uris))
                digests.add(rows.uris.take(pa.array(named)), start + rows.first + named)
                parts.add(_listed(table, rows, size))
                seen(len(rows.uris))
            start += table.rows
        parts.flush()
        repeats = digests.repeats()
    parts.rename(repeats)
    return Listing(tuple(parts.names), total, parts.bytes), int(repeats.sum())


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


def _rows(table: VectorTable) -> Iterator[_Rows]:
    """All rows of a table; those that cannot be read have no uris."""
    first = 0
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_table(table.file.uri))
        except UNREADABLE:  # why, its rows will say when their vectors are read
            file = None
        for group, count in enumerate(table.groups):
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


def _listed(table: VectorTable, rows: _Rows, size: int) -> pa.Table:
    """The listing's rows; a uri that is null or empty gives way to the row's own name."""
    file, count = table.file, len(rows.uris)
    numbers = np.arange(rows.first, rows.first + count)
    uris, named = rows.uris, _named(rows.uris)
    if not named.all():
        uris = pc.if_else(pa.array(named), uris, row_names(file.uri, numbers))
    return pa.table(
        {
            "uri": uris,
            "bytes": np.full(count, size),
            "version": joined(f"{table.version}+", numbers),
            "problem": pa.repeat("", count),
            "_container": pa.repeat(file.uri, count),
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


class _Parts:
    """Rows in, files of some hundred thousand out."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._starts = [0]  # of each file, through all of them
        self.names: list[str] = []
        self.bytes = 0

    def add(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        self._rows += rows.num_rows
        self.bytes += rows["uri"].nbytes + rows.num_rows * _ROW_WEIGHT
        if self._rows >= _PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._rows:
            name = f"{self._folder}/{len(self.names):05d}.parquet"
            self._write(name, pa.concat_tables(self._waiting))
            self.names.append(name)
            self._starts.append(self._starts[-1] + self._rows)
            self._waiting, self._rows = [], 0

    def rename(self, repeats: npt.NDArray[np.bool_]) -> None:
        """List the rows marked under names of their own."""
        for name, start, end in zip(self.names, self._starts[:-1], self._starts[1:], strict=True):
            if repeats[start:end].any():
                rows = pq.read_table(self._store.local(name))
                own = pc.binary_join_element_wise(
                    rows["_container"], pc.cast(rows["_offset"], pa.string()), _ROW
                )
                uris = pc.if_else(pa.array(repeats[start:end]), own, rows["uri"])
                self._write(name, rows.set_column(0, _SCHEMA.field(0), uris))

    def _write(self, name: str, rows: pa.Table) -> None:
        with self._store.write(name) as pending:
            pq.write_table(rows, pending.file, compression="zstd", use_dictionary=_SAID_ONCE)
