"""The rows of a work unit read from their table: listed rows, and what lies there.

Row groups are read in batches: memory is that of a batch, however large they are. A row group
without listed rows is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.errors import one_line
from lookalike.records import SourceFile
from lookalike.sources.looking_up import look_up
from lookalike.sources.vector_listing import row_names
from lookalike.sources.vector_pieces import Piece
from lookalike.sources.vector_tables import UNREADABLE, VectorTable, open_table, read_footer

_BATCH = 8192  # rows in memory at a time


class ListedRows(NamedTuple):
    """Some rows of a unit.

    Attributes:
        listed: As the unit file has them.
        batch: What lies in the table, under the names that columns are kept by; None where that
            cannot be read.
        repeats: Whether an earlier row bears the uri of each, (n,).
        problem: Why there is no batch.
    """

    listed: pa.Table
    batch: pa.RecordBatch | None
    repeats: npt.NDArray[np.bool_]
    problem: str = ""

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Of the rows in their table, (n,)."""
        return np.asarray(self.listed["_offset"].to_numpy())


def read_rows(piece: Piece, listed: pa.Table) -> Iterator[ListedRows]:
    """All listed rows of a unit, in order; a row group that is damaged costs no other."""
    file, rows = look_up(piece.uri), _Listed(listed)
    problem = file.problem or _changed(file, piece)
    row, end = piece.first_row, piece.first_row + piece.rows
    try:
        if not problem:
            with open_table(file.uri) as opened:
                table = read_footer(file)
                for group in range(piece.first_group, piece.end_group):
                    group_end = row + table.groups[group]
                    if rows.any(row, group_end):
                        yield from _group(opened, table, group, row, rows)
                    row = group_end
    except UNREADABLE as error:
        problem = one_line(error)
    yield from rows.lost(row, end, problem)


class _Listed:
    """The rows listed, found by their numbers."""

    def __init__(self, listed: pa.Table) -> None:
        self._table = listed.combine_chunks()
        self._numbers = listed["_offset"].to_numpy()

    def any(self, row: int, end: int) -> bool:
        low, high = np.searchsorted(self._numbers, [row, end])
        return bool(low < high)

    def between(self, row: int, end: int) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """Those from a row up to an end, and their distances from the row."""
        low, high = np.searchsorted(self._numbers, [row, end])
        return self._table.slice(low, high - low), self._numbers[low:high] - row

    def lost(self, row: int, end: int, problem: str) -> Iterator[ListedRows]:
        rows, _ = self.between(row, end)
        for start in range(0, rows.num_rows, _BATCH):
            some = rows.slice(start, _BATCH)
            yield ListedRows(some, None, np.zeros(some.num_rows, dtype=bool), problem)


def _group(
    opened: pq.ParquetFile, table: VectorTable, group: int, row: int, rows: _Listed
) -> Iterator[ListedRows]:
    end = row + table.groups[group]
    problem = "it has fewer rows than it announces"
    try:
        for batch in opened.iter_batches(
            _BATCH, row_groups=[group], columns=list(table.columns), use_threads=False
        ):
            listed, places = rows.between(row, row + batch.num_rows)
            row += batch.num_rows
            if 0 < len(places) < batch.num_rows:
                batch = batch.take(pa.array(places))
            if len(places):
                yield _matched(table.file.uri, listed, _as_kept(batch, table))
    except UNREADABLE as error:
        problem = one_line(error)
    yield from rows.lost(row, end, f"row group {group}: {problem}")


def _matched(table: str, listed: pa.Table, batch: pa.RecordBatch) -> ListedRows:
    """The rows as listed beside those that lie there; not, where these are others now."""
    uris, none = listed["uri"].combine_chunks(), np.zeros(batch.num_rows, dtype=bool)
    alike = _true(pc.equal(uris, batch["uri"]))
    if alike.all():
        return ListedRows(listed, batch, none)
    unnamed = _true(pc.equal(uris, row_names(table, listed["_offset"].to_numpy())))
    if not (alike | unnamed).all():
        problem = "it changed since it was listed, and its size and version did not"
        return ListedRows(listed, None, none, problem)
    named = _true(pc.greater(pc.binary_length(batch["uri"]), 0))
    return ListedRows(listed, batch, named & ~alike)


def _true(values: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(values.fill_null(False).to_numpy(zero_copy_only=False))


def _changed(file: SourceFile, piece: Piece) -> str:
    if (file.bytes, file.version) == (piece.bytes, piece.version):
        return ""
    return f"it changed since it was listed ({piece.bytes:,} bytes then, {file.bytes:,} now)"


def _as_kept(batch: pa.RecordBatch, table: VectorTable) -> pa.RecordBatch:
    """The columns under the names that they are kept by, without dictionaries."""
    columns = {"embedding": batch.column("embedding")}
    for name, kept in {"uri": "uri", **table.metadata}.items():
        column = batch.column(name)
        columns[kept] = column.dictionary_decode() if hasattr(column, "dictionary") else column
    columns["uri"] = columns["uri"].cast(pa.string())
    for name, value in table.partitions.items():
        columns[name] = pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
    return pa.RecordBatch.from_pydict(columns)
