"""One partition of names: what of its listing is as the ledger has it, and what is not.

A name of the ledger that is not listed is gone. It is unknown where nobody can tell tonight: where
it lies in a place that could not be listed, or was listed and cannot be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.reconcile.hidden import UNLISTED, UNREADABLE, Hidden, is_place
from lookalike.reconcile.same import Rule
from lookalike.store import ledger
from lookalike.store.objects import Store

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
class Comparison:
    """What came of comparing.

    listed = same + touched + new, previous = same + touched + gone + unknown.

    Attributes:
        previous: Files of the parent's ledger, removed ones left out.
        listed: Files of the listing, each counted once, without those that are unknown.
        same: Listed as the ledger has them.
        new: Listed, and not in the ledger.
        touched: In both, and to be looked at again.
        gone: In the ledger, and not listed.
        unknown: In the ledger, and nobody can tell what became of them.
        shifted: Of the rows that stand, those that are unknown now and were not, or the reverse, or
            for another reason.
        repeated: Rows of the listing that repeat the name of an earlier one.
        parts: Partitions of names.
        bytes: Of the candidates, roughly, as they are held in memory.
    """

    previous: int
    listed: int
    same: int
    new: int
    touched: int
    gone: int
    parts: int
    bytes: int = 0
    unknown: int = 0
    shifted: int = 0
    repeated: int = 0

    def to_json(self) -> dict[str, int]:
        """As compared.json holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, int]) -> Comparison:
        """Undo `to_json`."""
        return cls(**data)

    def __add__(self, other: Comparison) -> Comparison:
        """Both together."""
        added = other.to_json()
        return Comparison(**{name: value + added[name] for name, value in self.to_json().items()})


@dataclass
class Comparing:
    """Compares one partition of names after the other, and writes their files."""

    store: Store
    folder: str
    rule: Rule
    hidden: Hidden
    left_out: LeftOut
    # places that could not be listed, by the partition of their own name, with their old rows
    _waiting: dict[str, tuple[pa.Table, pa.Table]] = field(default_factory=dict)
    # uris of those that rows of files in them tell of, and what the names in them begin with
    _told: set[str] = field(default_factory=set)

    def compare(self, name: str, listed: pa.Table, old: pa.Table) -> Comparison:
        """Compare one partition, but for the places that could not be listed."""
        once = _once(listed)
        listed, repeated = once, listed.num_rows - once.num_rows
        places = is_place(listed) if self.hidden else None
        if places is not None and pc.any(places).as_py():
            waiting = listed.filter(places)
            theirs = pc.is_in(old["uri"], value_set=waiting["uri"])
            self._waiting[name] = waiting, old.filter(theirs)
            listed, old = listed.filter(pc.invert(places)), old.filter(pc.invert(theirs))
        return replace(self._compare(name, listed, old), repeated=repeated)

    def finish(self) -> Comparison:
        """Compare the places: one is listed, as a file is, where no row of a file tells of it."""
        totals = Comparison(0, 0, 0, 0, 0, 0, 0)
        for name, (waiting, old) in self._waiting.items():
            names = pa.array(sorted(self._told), pa.string())
            told = pc.or_(pc.is_in(waiting["uri"], names), pc.is_in(waiting["_hides"], names))
            totals = totals + self._compare(name, waiting.filter(pc.invert(told)), old)
        return totals

    def _compare(self, name: str, listed: pa.Table, before: pa.Table) -> Comparison:
        old = ledger.as_known(before)
        where = pc.fill_null(pc.index_in(listed["uri"], value_set=old["uri"]), -1).to_numpy()
        met = where >= 0
        same, lost = np.zeros((2, len(where)), dtype=np.bool_)
        same[met] = self.rule.same(listed.filter(pa.array(met)), old.take(pa.array(where[met])))
        lost[met] = _out_of_reach(listed.filter(pa.array(met)), old.take(pa.array(where[met])))
        stands, is_listed = np.zeros((2, old.num_rows), dtype=np.bool_)
        stands[where[same]] = is_listed[where[met]] = True
        problems = listed["problem"].filter(pa.array(lost)).to_pylist()
        unknown, left_out = self._unseen(old, is_listed)
        for row, problem in zip(where[lost].tolist(), problems, strict=True):
            unknown[row] = (UNREADABLE, problem)

        kept = _kept(old, stands, unknown)
        found = _with_was(listed.filter(pa.array(~same & ~lost)), old, where[~same & ~lost])
        goes = ~stands
        goes[list(unknown)] = False
        gone = old.append_column(GONE.field("listed"), pa.array(is_listed))
        gone = gone.append_column(GONE.field("left_out"), pa.array(left_out, pa.string()))
        gone = gone.append_column(GONE.field("was_unknown"), said_unknown(before))
        _write(self.store, f"{self.folder}/carried/{name}", _sorted(kept))
        _write(self.store, f"{self.folder}/candidates/{name}", found)
        _write(self.store, f"{self.folder}/gone/{name}", _sorted(gone.filter(pa.array(goes))))
        return Comparison(
            previous=old.num_rows,
            listed=listed.num_rows - int(lost.sum()),
            same=int(same.sum()),
            new=int((~met).sum()),
            touched=int((met & ~same & ~lost).sum()),
            gone=int((goes & ~is_listed).sum()),
            parts=0,
            bytes=found.nbytes,
            unknown=len(unknown),
            shifted=_shifted(before, stands, unknown),
        )

    def _unseen(
        self, old: pa.Table, is_listed: Mask
    ) -> tuple[dict[int, tuple[str, str]], list[str]]:
        """Reason and detail of rows not listed that nobody can tell of, and rules by all rows."""
        left_out = [""] * old.num_rows
        rows, never = np.flatnonzero(~is_listed), _never_read(old)
        uris = old["uri"].take(pa.array(rows)).to_pylist()
        unknown: dict[int, tuple[str, str]] = {}
        for row, uri, place in zip(rows.tolist(), uris, self.hidden.covering(uris), strict=True):
            left_out[row] = self.left_out(uri)
            if place is not None and not left_out[row] and not never[row]:
                unknown[row] = (UNLISTED, place.detail)
                self._told |= {place.uri, place.start}
        return unknown, left_out


def _out_of_reach(listed: pa.Table, old: pa.Table) -> Mask:
    """Which files cannot be looked at, and are known to have been read."""
    hides = pc.fill_null(pc.equal(listed["_hides"], listed["uri"]), False)
    found: Mask = hides.to_numpy() & ~_never_read(old)
    return found


def _never_read(old: pa.Table) -> Mask:
    """Which rows of the ledger know no more than that something could not be read."""
    found: Mask = pc.and_(
        pc.equal(old["status"], "rejected"), pc.equal(old["reason"], UNREADABLE)
    ).to_numpy()
    return found


def _kept(old: pa.Table, stands: Mask, unknown: Mapping[int, tuple[str, str]]) -> pa.Table:
    """The ledger rows that stand."""
    stood = old.filter(pa.array(stands))
    known = pc.if_else(pc.equal(stood["status"], "embedded"), "unchanged", stood["status"])
    stood = stood.set_column(stood.column_names.index("status"), "status", known)
    if not unknown:
        return stood
    rows = sorted(unknown)
    return pa.concat_tables([stood, said_of(old.take(pa.array(rows)), [unknown[i] for i in rows])])


def said_of(table: pa.Table, why: Sequence[tuple[str, str]]) -> pa.Table:
    """Ledger rows that are known, as rows that are unknown, by reason and detail of each."""
    known = pc.if_else(pc.equal(table["status"], "embedded"), "unchanged", table["status"])
    table = table.set_column(table.column_names.index("status"), "status", known)
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


def _once(table: pa.Table) -> pa.Table:
    """The first row of each name."""
    first = pc.index_in(table["uri"], value_set=table["uri"]).to_numpy()
    return table.filter(pa.array(first == np.arange(table.num_rows)))


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


def _write(store: Store, name: str, table: pa.Table) -> None:
    """Write one file of a partition; of places, beside what is there of files."""
    if table.num_rows:
        if store.has(name):
            table = pa.concat_tables([pq.read_table(store.local(name)).cast(table.schema), table])
            table = _sorted(table)
        with store.write(name) as pending:
            pq.write_table(table, pending.file, compression="zstd")
