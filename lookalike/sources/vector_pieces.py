"""Rows of tables of vectors cut into work units: those to be read of a run of row groups.

A row group is never cut, so that no page is read twice.

    candidates (by the hash of their names) -> ranges of rows -> sorted -> units
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.sources.listing import Listing
from lookalike.sources.vector_tables import VectorTable
from lookalike.store.files import remove_tree
from lookalike.store.objects import Store
from lookalike.store.partitions import Spill

UNIT_ROWS = 65_536
_ABOUT = b"lookalike.unit"
_RANGE_ROWS = 1_000_000  # in memory at once
_RANGE_BYTES = 1 << 30

Rows = npt.NDArray[np.int64]


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


def cut_vector_units(
    store: Store,
    candidates: Listing,
    folder: str,
    tables: Sequence[VectorTable],
    unit_rows: int = UNIT_ROWS,
) -> Iterator[tuple[str, int]]:
    """Write the unit files of the rows to be read; yields (path relative to the store, rows).

    Args:
        store: The store's root.
        candidates: Rows of the tables' listing, with further columns or not, in any order.
        folder: Of the unit files, relative to the store.
        tables: Those that were listed.
        unit_rows: See `cut_pieces`; rows that are no candidates count too.
    """
    pieces = [piece for table in tables for piece in cut_pieces(table, unit_rows)]
    starts = np.cumsum([0, *(piece.rows for piece in pieces)])
    number = 0
    for rows, places in _ranges(store, candidates, f"{folder}/ranges", tables, starts):
        order = np.argsort(places)
        rows, of = rows.take(pa.array(order)), _pieces(starts, places[order])
        bounds = np.flatnonzero(np.diff(of)) + 1
        for start, end in zip([0, *bounds], [*bounds, len(of)], strict=True):
            name = f"{folder}/{number:06d}.parquet"
            _write_unit(store, name, pieces[of[start]], rows.slice(start, end - start))
            yield name, int(end - start)
            number += 1


def _ranges(
    store: Store, candidates: Listing, folder: str, tables: Sequence[VectorTable], starts: Rows
) -> Iterator[tuple[pa.Table, Rows]]:
    """The candidates of one range of pieces after the other, and their places in all tables."""
    first, total = {}, 0
    for table in tables:
        first[table.file.uri] = total
        total += table.rows
    parts = candidates.parts
    if candidates.rows <= _RANGE_ROWS and candidates.bytes <= _RANGE_BYTES:
        if parts:
            rows = pa.concat_tables([pq.read_table(store.local(part)) for part in parts])
            yield rows, _places(rows, first)
        return
    count = max(-(-total // _RANGE_ROWS), -(-candidates.bytes // _RANGE_BYTES))
    with Spill(store.scratch(folder), count, pq.read_schema(store.parquet(parts[0]))) as spill:
        for part in parts:
            with pq.ParquetFile(store.local(part)) as file:
                for batch in file.iter_batches():
                    rows = pa.Table.from_batches([batch])
                    pieces = _pieces(starts, _places(rows, first))
                    spill.write(rows, starts[pieces] * count // total)
    for number in range(count):
        if spill.path(number) is not None:
            rows = spill.read(number)
            yield rows, _places(rows, first)
    remove_tree(spill.folder)


def _places(rows: pa.Table, first: dict[str, int]) -> Rows:
    """Numbers of rows, through all tables, of which these are the first rows."""
    containers = rows["_container"].combine_chunks().dictionary_encode()
    starts = np.array([first[uri] for uri in containers.dictionary.to_pylist()], dtype=np.int64)
    places: Rows = starts[containers.indices.to_numpy()] + rows["_offset"].to_numpy()
    return places


def _pieces(starts: Rows, places: Rows) -> Rows:
    """The number of the piece in which each place lies."""
    return np.searchsorted(starts, places, side="right") - 1


def _write_unit(store: Store, relative: str, piece: Piece, rows: pa.Table) -> None:
    about = {_ABOUT: json.dumps(asdict(piece)).encode()}
    with store.write(relative) as pending:
        pq.write_table(
            rows.replace_schema_metadata(about), pending.file, compression="zstd",
            use_dictionary=["bytes", "problem", "_container", "_group"],
        )  # fmt: skip


def read_unit(path: Path | BinaryIO) -> tuple[Piece, pa.Table]:
    """A unit's run of row groups, and its rows in the order in which they lie there."""
    rows = pq.read_table(path)
    return Piece(**json.loads(rows.schema.metadata[_ABOUT])), rows
