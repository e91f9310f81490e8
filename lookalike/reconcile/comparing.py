r"""What of a listing is as the parent's ledger has it, and what is to be looked at again.

Both sides are dealt out by the hash of the name and compared a partition at a time (`Meeting` of
`lookalike.store.meeting`). Nothing is read of the files themselves.

    listing's parts -> partitions of names \
                                            -> carried (as before), candidates (to be read), gone
    parent's ledger -> partitions of names /

What could not be listed, or looked at, is neither: it is carried, as unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.reconcile.compared import PARTS, PLACES, Comparison
from lookalike.reconcile.hidden import PLACE, Hidden, is_place, places_of
from lookalike.reconcile.one_partition import (
    LeftOut,
    Partition,
    compare_partition,
    nothing_left_out,
    once_each,
)
from lookalike.reconcile.same import Rule
from lookalike.sources.listing import Listing, listing_schema, write_table
from lookalike.store import ledger
from lookalike.store.attempts import Part, Record, finished, recorded
from lookalike.store.exchange import Dealing, Reference, in_tasks, taken
from lookalike.store.files import HashedName
from lookalike.store.objects import Store
from lookalike.store.partitions import partition_count, uri_partitions

# sides of the exchange; those of `_FILE` and `_LEDGER` are whole files, where they are
_LISTED, _BEFORE, _PLACES, _FILE, _LEDGER = "listed", "before", "places", "file", "ledger"
_DEALT = "dealt"

Line = Mapping[str, Any]


@dataclass(frozen=True)
class _Task:
    """Files to be dealt out; of side `_LEDGER` one that is a partition's, and need not be."""

    side: str
    paths: tuple[str, ...]
    partition: int = 0
    line: Line = field(default_factory=dict)  # the manifest's, of side `_LEDGER`


@dataclass(frozen=True)
class Comparing:
    """How a listing is compared with the parent's ledger, into files below `folder`.

    Each kind has at most one Parquet file per partition of names, and one of places, none where it
    would be empty (see `compared.files_of`): `carried` ledger rows that stand (those once embedded
    are unchanged now, and those of which nobody can tell unknown), but for those that lie as they
    are in files of the parent's (see `standing`); `candidates` rows of the listing with the columns
    of `WAS`; `gone` ledger rows that do not stand (`GONE`).

    A file is the same if it has a version, and bytes, version and metadata are those of the ledger.
    One that changed less than two seconds before the parent's scan began, or after, may have been
    read before it changed, and is looked at again.

    Attributes:
        folder: Of the run's scratch, relative to the store.
        tasks: What deals rows out, by number.
        schema: Of the listing.
        left_out: By which rule of the config a name is not to be listed, "" where by none.
        rows: Of both sides.
    """

    folder: str
    tasks: tuple[_Task, ...]
    parts: int
    rule: Rule
    schema: pa.Schema
    left_out: LeftOut
    rows: int

    @classmethod
    def of(
        cls,
        listing: Listing,
        parent: Sequence[Line],
        folder: str,
        rule: Rule,
        left_out: LeftOut = nothing_left_out,
    ) -> Comparing:
        """Plan a comparison.

        Args:
            listing: What the sources hold; of a name listed more than once the first row counts.
            parent: The manifest's lines for the parent's ledger; none for a first run.
            folder: See the attributes.
            rule: Its `metadata` are None where the listing does not hold them.
            left_out: See the attributes; it is pickled.
        """
        previous = sum(line["rows"] for line in parent)
        count, divided = _partitions(listing, previous, parent), _divided(parent)
        tasks = [_Task(_LISTED, paths) for paths in in_tasks(listing.parts, listing.rows)]
        if divided is not None and divided >= count:  # whole files make up each partition
            tasks += [
                _Task(_LEDGER, (line["path"],), line["partition"][0] * count // divided, line)
                for line in parent
            ]
        else:
            paths = [line["path"] for line in parent]
            tasks += [_Task(_BEFORE, some) for some in in_tasks(paths, previous)]
        schema = listing_schema(rule.metadata or pa.schema([]))
        return cls(folder, tuple(tasks), count, rule, schema, left_out, listing.rows + previous)

    @property
    def undivided(self) -> bool:
        """Whether the one partition can read the listing itself, so that nothing is dealt out."""
        listed = (task for task in self.tasks if task.side == _LISTED)
        return self.parts == 1 and all(len(task.paths) == 1 for task in listed)

    def deal(self, number: int, store: Store) -> Record:
        """Deal out the rows of one task."""
        return _deal(Part(f"{self.folder}/{_DEALT}", number), store, self)

    def take(self, number: int, pieces: Sequence[Reference], store: Store) -> Record:
        """Compare one partition, but for the places that could not be listed."""
        return _take(Part(f"{self.folder}/{PARTS}", number), store, self, pieces)

    def finish(self, store: Store, parts: Mapping[int, Record]) -> Comparison:
        """Compare the places, sum up what the partitions' records say, and keep it.

        A place is listed, as a file is, where no row of a file tells of it.
        """
        totals = sum((_totals(record) for record in parts.values()), Comparison())
        told = {name for record in parts.values() for name in record["told"]}
        for number, record in parts.items():
            if record["waiting"]:
                part = Part(f"{self.folder}/{PLACES}", number)
                totals += _totals(_compare_places(part, store, self, record["waiting"], told))
        digest, places = hashlib.sha256(), 0
        tasks = [number for number, task in enumerate(self.tasks) if task.side == _LISTED]
        for dealt in finished(store, [Part(f"{self.folder}/{_DEALT}", one).done for one in tasks]):
            digest.update(bytes.fromhex(dealt["digest"]))
            places += dealt["places"]
        totals = replace(totals, parts=self.parts, places=places, digest=digest.hexdigest())
        store.write_json(f"{self.folder}/compared.json", asdict(totals))
        store.delete_below(f"{self.folder}/{_DEALT}")
        return totals


def _totals(record: Record) -> Comparison:
    return Comparison(**record["totals"])


# --- dealing out ------------------------------------------------------------------------------


def _partitions(listing: Listing, previous: int, parent: Sequence[Line]) -> int:
    """As few as memory allows; the parent's number while it serves, as its files do then."""
    least = partition_count(max(listing.rows, previous), listing.bytes)
    had = _divided(parent)
    return had if had is not None and least <= had <= 4 * least else least


def _divided(parent: Sequence[Line]) -> int | None:
    """The number of partitions of a ledger whose files are partitions; None for any other."""
    counts = {line["partition"][1] if "partition" in line else None for line in parent}
    return counts.pop() if len(counts) == 1 else None


@recorded
def _deal(part: Part, store: Store, plan: Comparing) -> Record:
    task = plan.tasks[part.number]
    if task.side == _LEDGER:
        return _whole(_LEDGER, task.paths[0], task.line["rows"], task.partition)
    digest, places, rows = hashlib.sha256(), 0, 0
    name = HashedName(f"{plan.folder}/{_DEALT}/{part.number:06d}", ".arrow")
    with Dealing(store, name, plan.parts) as dealing:
        for path in task.paths:
            if task.side == _BEFORE:
                for table in _living(store.local(path)):
                    dealing.write(table, uri_partitions(table["uri"], plan.parts), _BEFORE)
                continue
            table = _listed(store, path, plan)
            hidden = places_of(table)
            if not plan.undivided:
                dealing.write(table, uri_partitions(table["uri"], plan.parts), _LISTED)
                dealing.share(hidden, _PLACES)
            places, rows = places + hidden.num_rows, rows + table.num_rows
            for column in table.select(["uri", "bytes", "version"]).columns:
                for buffer in column.combine_chunks().buffers():
                    digest.update(buffer or b"")
    seen = {"digest": digest.hexdigest(), "places": places}
    if task.side == _LISTED and plan.undivided:
        return {**_whole(_FILE, task.paths[0], rows), **seen}
    return {**dealing.record(), **seen}


def _whole(side: str, path: str, rows: int, partition: int = 0) -> Record:
    """A file that is one piece, as it is."""
    return {"dealt": {"path": path}, "rows": rows, "pieces": [(partition, side, 0, 0, rows)]}


def _listed(store: Store, path: str, plan: Comparing) -> pa.Table:
    """Rows of a part of the listing."""
    file = store.local(path) if plan.undivided else store.once(path)  # there it is read twice
    return pq.read_table(file).select(plan.schema.names).cast(plan.schema)


def _living(path: Path) -> Iterator[pa.Table]:
    """Rows of a ledger file, but for those that were removed."""
    for table in ledger.ledger_tables(path):
        yield table.filter(pc.not_equal(table["status"], "removed"))


# --- a partition of names ---------------------------------------------------------------------


@recorded
def _take(part: Part, store: Store, plan: Comparing, pieces: Sequence[Reference]) -> Record:
    files = [one.path for one in sorted(set(pieces)) if one.side == _FILE]
    listed = pa.concat_tables([
        taken(store, pieces, plan.schema, _LISTED), *(_listed(store, path, plan) for path in files)
    ])  # fmt: skip
    hidden = Hidden.of(places_of(listed) if files else taken(store, pieces, PLACE, _PLACES))
    lines = [plan.tasks[one.task].line for one in sorted(set(pieces)) if one.side == _LEDGER]
    old = pa.concat_tables([
        taken(store, pieces, ledger.SCHEMA, _BEFORE),
        *(table for line in lines for table in _living(store.local(line["path"]))),
    ])  # fmt: skip
    waiting, repeated = None, 0
    places = is_place(listed)
    if pc.any(places).as_py():
        listed, repeated = once_each(listed)
        places = is_place(listed)
        theirs = pc.is_in(old["uri"], value_set=listed["uri"].filter(places))
        waiting = {
            _LISTED: _write(store, plan, "waiting", part.number, listed.filter(places)),
            _BEFORE: _write(store, plan, "waiting-old", part.number, old.filter(theirs)),
        }
        listed, old = listed.filter(pc.invert(places)), old.filter(pc.invert(theirs))
    found = compare_partition(listed, old, plan.rule, hidden, plan.left_out, in_place=bool(lines))
    record = _record(store, plan, part.number, found)
    totals = {**record["totals"], "repeated": repeated + found.totals.repeated}
    rows = sum(piece.rows for piece in set(pieces))
    return {**record, "totals": totals, "rows": rows, "waiting": waiting,
            "told": sorted(found.told), "stands": [dict(line) for line in lines]}  # fmt: skip


@recorded
def _compare_places(
    part: Part, store: Store, plan: Comparing, waiting: Record, told: set[str]
) -> Record:
    listed, old = (
        pq.read_table(store.once(waiting[side]["path"])).cast(schema) if waiting[side] else
        schema.empty_table()
        for side, schema in ((_LISTED, plan.schema), (_BEFORE, ledger.SCHEMA))
    )  # fmt: skip
    names = pa.array(sorted(told), pa.string())
    is_told = pc.or_(pc.is_in(listed["uri"], names), pc.is_in(listed["_hides"], names))
    listed = listed.filter(pc.invert(is_told))
    found = compare_partition(listed, old, plan.rule, Hidden({}), plan.left_out)
    return _record(store, plan, part.number, found, "-places")


def _record(store: Store, plan: Comparing, number: int, found: Partition, more: str = "") -> Record:
    files = {
        kind: _write(store, plan, kind, number, table, more) for kind, table in found.tables.items()
    }
    return {"totals": asdict(found.totals), "files": files}


def _write(
    store: Store, plan: Comparing, kind: str, number: int, table: pa.Table, more: str = ""
) -> Record | None:
    """Write one file of a partition, if there are rows; the manifest's line of it."""
    if not table.num_rows:
        return None
    name = HashedName(f"{plan.folder}/{kind}/{number:05d}{more}", ".parquet")
    return {**write_table(store, name, table), "rows": table.num_rows}
