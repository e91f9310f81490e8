"""Rows of tables of vectors cut into work units: those to be read of a run of row groups.

A row group is never cut, so that no page is read twice.

    candidates (by the hash of their names) -> ranges of pieces -> sorted -> units
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.sources.listing import Listing
from lookalike.sources.units import Units, number_units
from lookalike.sources.vector_tables import VectorTable
from lookalike.store.attempts import Part, Record, recorded
from lookalike.store.exchange import Dealing, Reference, in_tasks, taken
from lookalike.store.files import HashedName
from lookalike.store.objects import Store

UNIT_ROWS = 65_536
_PART_ROWS = 1_000_000  # in memory at once
_PART_BYTES = 1 << 30

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """The rows of a unit: row groups `first_group` up to `end_group` of a table.

    Attributes:
        uri: Of the table, as listed.
        bytes: Its size when it was listed.
        end_group: The one after the last.
        first_row: Number of the first row in the table.
        groups: How many in each row group.
        listed_as: The version that its rows are listed under, but for their numbers.
    """

    uri: str
    bytes: int
    version: str
    first_group: int
    end_group: int
    first_row: int
    rows: int
    groups: tuple[int, ...]
    listed_as: str


def cut_pieces(table: VectorTable, unit_rows: int = UNIT_ROWS) -> Iterator[Piece]:
    """Runs of row groups of about `unit_rows` rows; depends on the table alone."""
    file, groups = table.file, table.groups
    first_group = first_row = rows = 0

    def piece(end: int) -> Piece:
        return Piece(
            file.uri,
            file.bytes,
            file.version,
            first_group,
            end,
            first_row,
            rows,
            groups[first_group:end],
            table.version,
        )

    for group, count in enumerate(groups):
        if rows and rows + count > unit_rows:
            yield piece(group)
            first_group, first_row, rows = group, first_row + rows, 0
        rows += count
    if rows:
        yield piece(len(groups))


@dataclass(frozen=True)
class VectorCutting:
    """How candidates are cut into units below `folder`: those of a piece are one.

    Attributes:
        folder: Of the run's scratch, relative to the store.
        tasks: Files of the candidates, which deal their rows out.
        pieces: Of all tables, in order.
        parts: Ranges of pieces, each of whose rows fit memory.
    """

    folder: str
    tasks: tuple[tuple[str, ...], ...]
    pieces: tuple[Piece, ...]
    parts: int

    @classmethod
    def of(
        cls,
        candidates: Listing,
        folder: str,
        tables: Sequence[VectorTable],
        unit_rows: int = UNIT_ROWS,
    ) -> VectorCutting:
        """Plan it.

        Args:
            candidates: Rows of the tables' listing, with further columns or not, in any order.
            folder: See the attributes.
            tables: Those that were listed.
            unit_rows: See `cut_pieces`; rows that are no candidates count too.
        """
        pieces = tuple(piece for table in tables for piece in cut_pieces(table, unit_rows))
        count = max(-(-candidates.rows // _PART_ROWS), -(-candidates.bytes // _PART_BYTES), 1)
        tasks = in_tasks(candidates.parts, candidates.rows)
        return cls(folder, tuple(tasks), pieces, min(count, max(1, len(pieces))))

    def deal(self, number: int, store: Store) -> Record:
        """Deal the rows of one task out to ranges of pieces."""
        return _deal(Part(f"{self.folder}/dealt", number), store, self)

    def take(self, number: int, pieces: Sequence[Reference], store: Store) -> Record:
        """Cut the rows of one range."""
        return _take(Part(f"{self.folder}/parts", number), store, self, pieces)

    def finish(self, parts: Mapping[int, Record]) -> Units:
        """Number the units of all ranges."""
        return number_units(self.folder, self.parts, parts)

    def pieces_of(self, rows: pa.Table) -> Rows:
        """Number of the piece in which each row lies, (n,)."""
        firsts: dict[str, int] = {}
        starts: dict[str, list[int]] = {}
        for number, piece in enumerate(self.pieces):
            firsts.setdefault(piece.uri, number)
            starts.setdefault(piece.uri, []).append(piece.first_row)
        containers = rows["_container"].combine_chunks().dictionary_encode()
        which, offsets = containers.indices.to_numpy(), rows["_offset"].to_numpy()
        found: Rows = np.empty(len(offsets), dtype=np.int64)
        for index, uri in enumerate(containers.dictionary.to_pylist()):
            here = which == index
            found[here] = firsts[uri] - 1 + np.searchsorted(starts[uri], offsets[here], "right")
        return found


@recorded
def _deal(part: Part, store: Store, plan: VectorCutting) -> Record:
    name = HashedName(f"{plan.folder}/dealt/{part.number:06d}", ".arrow")
    with Dealing(store, name, plan.parts) as dealing:
        for path in plan.tasks[part.number]:
            rows = pq.read_table(store.parquet(path))
            dealing.write(rows, plan.pieces_of(rows) * plan.parts // len(plan.pieces))
    return dealing.record()


@recorded
def _take(part: Part, store: Store, plan: VectorCutting, pieces: Sequence[Reference]) -> Record:
    rows = taken(store, pieces)
    found = plan.pieces_of(rows)
    order = np.lexsort((rows["_offset"].to_numpy(), found))
    if (order != np.arange(len(order))).any():
        rows, found = rows.take(pa.array(order)), found[order]
    there, units = np.unique(found, return_inverse=True)
    name = HashedName(f"{plan.folder}/{part.number:05d}", ".arrow")
    with Dealing(store, name, len(there)) as dealing:
        dealing.write(rows, units)
    return {
        **dealing.record(),
        "count": len(there),
        "about": [asdict(plan.pieces[number]) for number in there.tolist()],
    }


def piece_of(store: Store, units: Units, number: int) -> Piece:
    """What of a table a unit is to be read of."""
    part, within = units.place(number)
    about = store.read_json(part.done)["about"][within]
    return Piece(**{**about, "groups": tuple(about["groups"])})
