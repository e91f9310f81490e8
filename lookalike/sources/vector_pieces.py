"""Tables of vectors cut into work units: runs of row groups, and the rows to leave out as repeats.

A row group is never cut, so that no page is read twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.sources.vector_tables import VectorTable
from lookalike.store.storage import write_file

UNIT_ROWS = 65_536
_ABOUT = b"lookalike.unit"
_REPEATS = pa.schema([("row", pa.int64()), ("first", pa.string())])


@dataclass(frozen=True)
class Piece:
    """The rows of a unit: row groups `first_group` up to `end_group` of a table.

    Attributes:
        uri: Of the table, as listed.
        bytes: Its size when it was listed.
        version: Its version then.
        first_group: First row group.
        end_group: The one after the last.
        first_row: Number of the first row in the table.
        rows: How many rows.
    """

    uri: str
    bytes: int
    version: str
    first_group: int
    end_group: int
    first_row: int
    rows: int


# --- cutting ----------------------------------------------------------------------------------


def cut_pieces(table: VectorTable, unit_rows: int = UNIT_ROWS) -> Iterator[Piece]:
    """Runs of row groups of about `unit_rows` rows; depends on the table alone."""
    file = table.file
    first_group = first_row = rows = 0
    for group, count in enumerate(table.groups):
        if rows and rows + count > unit_rows:
            yield Piece(file.uri, file.bytes, file.version, first_group, group, first_row, rows)
            first_group, first_row, rows = group, first_row + rows, 0
        rows += count
    if rows:
        end = len(table.groups)
        yield Piece(file.uri, file.bytes, file.version, first_group, end, first_row, rows)


def write_units(
    store: Path,
    folder: str,
    tables: Sequence[VectorTable],
    repeats: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    unit_rows: int = UNIT_ROWS,
) -> int:
    """Write the unit files of all tables; returns how many.

    Args:
        store: The store's root.
        folder: Of the unit files, relative to it.
        tables: In order.
        repeats: Rows whose uri is not new, and the rows that bear it first (see `find_repeats`).
        unit_rows: See `cut_pieces`.
    """
    ends = np.cumsum([table.rows for table in tables])
    number = start = 0  # of units; of rows
    for table in tables:
        for piece in cut_pieces(table, unit_rows):
            low, high = np.searchsorted(repeats[0], [start, start + piece.rows])
            rows = repeats[0][low:high] - start + piece.first_row
            firsts = [_place(row, tables, ends) for row in repeats[1][low:high].tolist()]
            _write_unit(store, f"{folder}/{number:06d}.parquet", piece, rows, firsts)
            number, start = number + 1, start + piece.rows
    return number


def _place(row: int, tables: Sequence[VectorTable], ends: npt.NDArray[np.int64]) -> str:
    table = int(np.searchsorted(ends, row, side="right"))
    return f"row {row - int(ends[table]) + tables[table].rows} of {tables[table].file.uri}"


def _write_unit(
    store: Path, relative: str, piece: Piece, rows: npt.NDArray[np.int64], firsts: list[str]
) -> None:
    schema = _REPEATS.with_metadata({_ABOUT: json.dumps(asdict(piece)).encode()})
    with write_file(store, relative) as pending:
        pq.write_table(pa.table([rows, pa.array(firsts, pa.string())], schema=schema), pending.file)


def read_unit(path: Path) -> tuple[Piece, dict[int, str]]:
    """A unit's rows, and where the uris are first that its rows repeat."""
    table = pq.read_table(path)
    piece = Piece(**json.loads(table.schema.metadata[_ABOUT]))
    return piece, dict(zip(table["row"].to_pylist(), table["first"].to_pylist(), strict=True))
