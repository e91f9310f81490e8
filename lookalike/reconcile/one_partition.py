"""One partition of names: what of its listing is as the ledger has it, and what is not.

A name of the ledger that is not listed is gone. It is unknown where nobody can tell tonight: where
it lies in a place that could not be listed, or was listed and cannot be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.reconcile.compared import Comparison
from lookalike.reconcile.hidden import UNLISTED, UNREADABLE, Hidden
from lookalike.reconcile.same import Rows, Rule
from lookalike.store import ledger

WAS = pa.schema(
    [
        ("_was_sha256", pa.binary(32)),
        ("_was_id", pa.int64()),
        ("_was_metadata_hash", pa.int64()),
        ("_was", pa.bool_()),
    ]
)
"""What the parent's ledger says of a candidate, beside the listing's columns; null where new."""
GONE = pa.schema(
    [
        *ledger.SCHEMA,
        ("listed", pa.bool_()),
        ("left_out", pa.string()),  # by which rule of the config; "" where by none
        ("was_unknown", pa.string()),  # reason and detail, where the ledger could not tell; or null
    ]
)
"""Ledger rows that do not stand, as they were when they were last known."""

Mask = npt.NDArray[np.bool_]
LeftOut = Callable[[str], str]


@dataclass(frozen=True)
class Partition:
    """What came of comparing one.

    Attributes:
        totals: Of its rows.
        tables: Rows by kind: "carried", "candidates", "gone" (see `comparing.Comparing`).
        told: Of places that could not be listed and that rows of files in them tell of, the uris,
            and what the names in them begin with.
    """

    totals: Comparison
    tables: Mapping[str, pa.Table]
    told: frozenset[str]


def nothing_left_out(uri: str) -> str:
    """By which rule a name is not to be listed: by none."""
    return ""


def compare_partition(
    listed: pa.Table,
    before: pa.Table,
    rule: Rule,
    hidden: Hidden,
    left_out: LeftOut,
    *,
    in_place: bool = False,
) -> Partition:
    """Compare rows of a listing with those that the ledger had.

    Each name is once in the ledger; of those repeated in the listing the first row counts. With
    `in_place`, rows that stand are read where they lie (see `standing`), and of those to be carried
    only the ones are told that nobody can tell of.
    """
    old = ledger.as_known(before)
    where = pc.fill_null(pc.index_in(listed["uri"], value_set=old["uri"]), -1).to_numpy()
    first = _first(listed["uri"], where, old.num_rows)
    repeated = len(first) - int(first.sum())
    if repeated:
        listed, where = listed.filter(pa.array(first)), where[first]
    met = where >= 0
    same, lost = np.zeros((2, len(where)), dtype=np.bool_)
    here, there = listed.filter(pa.array(met)), Rows(old, pa.array(where[met]))
    same[met], lost[met] = rule.same(here, there), _out_of_reach(here, there)
    stands, is_listed = np.zeros((2, old.num_rows), dtype=np.bool_)
    stands[where[same]] = is_listed[where[met]] = True
    unseen = _unseen(old, is_listed, hidden, left_out)
    unknown, problems = unseen.unknown, listed["problem"].filter(pa.array(lost)).to_pylist()
    for row, problem in zip(where[lost].tolist(), problems, strict=True):
        unknown[row] = (UNREADABLE, problem)

    found = _with_was(listed.filter(pa.array(~same & ~lost)), old, where[~same & ~lost])
    goes = ~stands
    goes[list(unknown)] = False
    gone = old.append_column(GONE.field("listed"), pa.array(is_listed))
    gone = gone.append_column(GONE.field("left_out"), pa.array(unseen.left_out, pa.string()))
    gone = gone.append_column(GONE.field("was_unknown"), said_unknown(before))
    tables = {
        "carried": _sorted(_kept(old, stands & (not in_place), unknown)),
        "candidates": found,
        "gone": _sorted(gone.filter(pa.array(goes))),
    }
    totals = Comparison(
        previous=old.num_rows,
        listed=listed.num_rows - int(lost.sum()),
        same=int(same.sum()),
        new=int((~met).sum()),
        touched=int((met & ~same & ~lost).sum()),
        gone=int((goes & ~is_listed).sum()),
        bytes=found.nbytes,
        unknown=len(unknown),
        shifted=_shifted(before, stands, unknown),
        repeated=repeated,
    )
    return Partition(totals, tables, frozenset(unseen.told))


def once_each(table: pa.Table) -> tuple[pa.Table, int]:
    """The first row of each name, and how many others there are."""
    first = _first(table["uri"], np.full(table.num_rows, -1, dtype=np.int32), 0)
    return table.filter(pa.array(first)), len(first) - int(first.sum())


def _first(names: pa.ChunkedArray, where: npt.NDArray[np.int32], known: int) -> Mask:
    """Which rows are the first of their name.

    Args:
        names: (n,).
        where: (n,). The number of each name among those known, by which most are told apart at a
            tenth of what it costs to compare names; -1 of others.
        known: How many there are.
    """
    first, met = np.ones(len(where), dtype=np.bool_), where >= 0
    rows, place = np.flatnonzero(met), np.empty(known, dtype=np.int64)
    place[where[rows[::-1]]] = rows[::-1]  # of what is assigned twice, the last assignment stays
    first[rows] = place[where[rows]] == rows
    others = names if not len(rows) else names.filter(pa.array(~met))
    first[~met] = pc.index_in(others, value_set=others).to_numpy() == np.arange(len(others))
    return first


@dataclass
class _Unseen:
    """Of ledger rows not listed: by number why nobody can tell of them; and rules by all rows."""

    left_out: list[str]
    unknown: dict[int, tuple[str, str]] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


def _unseen(old: pa.Table, is_listed: Mask, hidden: Hidden, left_out: LeftOut) -> _Unseen:
    found = _Unseen([""] * old.num_rows)
    rows, never = np.flatnonzero(~is_listed), _never_read(old)
    uris = old["uri"].take(pa.array(rows)).to_pylist()
    for row, uri, place in zip(rows.tolist(), uris, hidden.covering(uris), strict=True):
        found.left_out[row] = left_out(uri)
        if place is not None and not found.left_out[row] and not never[row]:
            found.unknown[row] = (UNLISTED, place.detail)
            found.told |= {place.uri, place.start}
    return found


def _out_of_reach(listed: pa.Table, old: Rows) -> Mask:
    """Which files cannot be looked at, and are known to have been read.

    What may be a folder (a link that leads nowhere) may be the file that it was, too.
    """
    below = pc.binary_join_element_wise(listed["uri"], "/", "")
    hides = pc.fill_null(
        pc.or_(pc.equal(listed["_hides"], listed["uri"]), pc.equal(listed["_hides"], below)), False
    )
    found: Mask = hides.to_numpy()
    return found & ~_never_read(old) if found.any() else found


def _never_read(old: pa.Table | Rows) -> Mask:
    """Which rows of the ledger know no more than that something could not be read."""
    found: Mask = pc.and_(
        pc.equal(old["status"], "rejected"), pc.equal(old["reason"], UNREADABLE)
    ).to_numpy()
    return found


def _kept(old: pa.Table, stands: Mask, unknown: Mapping[int, tuple[str, str]]) -> pa.Table:
    """The ledger rows that stand, as they are from now on."""
    stood = ledger.as_unchanged(old.filter(pa.array(stands)))
    if not unknown:
        return stood
    rows = sorted(unknown)
    return pa.concat_tables([stood, said_of(old.take(pa.array(rows)), [unknown[i] for i in rows])])


def said_of(table: pa.Table, why: Sequence[tuple[str, str]]) -> pa.Table:
    """Ledger rows that are known, as rows that are unknown, by reason and detail of each."""
    table = ledger.as_unchanged(table)
    reasons, details = ([one[i] for one in why] for i in (0, 1))
    return ledger.as_unknown(table, pa.array(reasons, pa.string()), pa.array(details, pa.string()))


def said_unknown(table: pa.Table) -> pa.ChunkedArray:
    """Reason and detail of the rows that are unknown, null for all others."""
    said = pc.binary_join_element_wise(table["reason"], table["detail"], ": ")
    return pc.if_else(ledger.is_unknown(table), said, pa.scalar(None, pa.string()))


def _shifted(before: pa.Table, stands: Mask, unknown: Mapping[int, tuple[str, str]]) -> int:
    """Rows that stand and say otherwise than before that they are unknown, or that they are not."""
    if not unknown and not pc.any(ledger.is_unknown(before)).as_py():
        return 0
    said: list[str | None] = said_unknown(before).to_pylist()
    returned = sum(said[row] is not None for row in np.flatnonzero(stands).tolist())
    return returned + sum(said[row] != ": ".join(why) for row, why in unknown.items())


def _with_was(found: pa.Table, old: pa.Table, where: npt.NDArray[np.int32]) -> pa.Table:
    rows = pa.array(where, mask=where < 0)
    columns = {
        "_was_sha256": old["content_sha256"],
        "_was_id": old["id"],
        "_was_metadata_hash": old["metadata_hash"],
        "_was": pa.chunked_array([pa.repeat(True, old.num_rows)]),
    }
    for column in WAS:
        found = found.append_column(column, columns[column.name].take(rows))
    return found


def _sorted(table: pa.Table) -> pa.Table:
    """By name; most are so already, which is quicker to see than to do."""
    names = table["uri"].combine_chunks()
    ascending = pc.all(pc.less_equal(names[:-1], names[1:])).as_py()
    return table if ascending is not False else table.sort_by("uri")
