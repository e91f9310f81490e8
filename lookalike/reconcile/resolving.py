"""Resolving a run: what its units found, put together with what stands from the last ledger.

    units' rows, gone rows, carried rows of their contents
        -> by content: main names, rows kept, rows to copy, deleted ids
        -> by name, with the rows that have no content: ledger rows, what changed
        -> by content: which names that came are names that went
    copy
        -> by file: rows written with a copied vector

Each arrow is a meeting of rows (see `store.exchange`): tasks deal them out by content, then by
name, and a task for each partition takes them. Here are only the numbers of partitions, and the
sums that their records tell. Of the carried rows only those that share a content with a touched one
take part; the others are looked at once, where they lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.distances import Ids
from lookalike.reconcile.by_content import ByContent, Copies
from lookalike.reconcile.by_name import ByName
from lookalike.reconcile.compared import Comparison
from lookalike.reconcile.copying import Copying
from lookalike.reconcile.dealing import Dealer, Touched, write_filter
from lookalike.reconcile.hidden import UNREADABLE
from lookalike.reconcile.renames import Renames
from lookalike.reconcile.sampled import SAMPLES
from lookalike.reconcile.settling import (
    CONTENTS,
    COPIED,
    LISTED,
    MOVED,
    NAMES,
    TOUCHED,
    UNREAD,
    Resolved,
    Settling,
)
from lookalike.reconcile.unread import Unread
from lookalike.store.attempts import Record, finished
from lookalike.store.files import FileRecord
from lookalike.store.ledger import UNKNOWN, Counts, check_balance
from lookalike.store.manifest import FileLine
from lookalike.store.meeting import Meet, Meeting
from lookalike.store.objects import Store
from lookalike.store.partitions import uri_hashes

_PART_ROWS = 1 << 17  # of a partition of contents, about
_LOOKED_AT = 8  # rows carried on cost together what one does that takes part
_SETTLING = "settling.json"
_TASK_ROWS = 1 << 18  # that a task with units deals out, about


def resolve(
    store: Store,
    units: Sequence[Record],
    embedded: str,
    compared: str,
    folder: str,
    *,
    meet: Meet,
    by_content: bool,
    first_file_no: int,
    metadata: pa.Schema,
    listing: Sequence[str],
    shards: Mapping[int, str],
) -> Resolved:
    """Settle names, ids and ledger rows of everything that this run touched.

    Writes below `folder`: `dead.npy` (ids that are tombstones from now on, int64, ascending),
    records of partitions of names, with files of `concluding.RESOLVED` rows, and of renames, and
    last `resolved.json`; where that is there already, nothing is done again.

    Args:
        store: The store's root; all other paths are relative to it.
        units: The records of the run's units, all done, in order.
        embedded: Their folder, NNNNNN.json each.
        compared: Where `compare` wrote.
        folder: Of the run's scratch.
        meet: Brings rows together.
        by_content: Names of equal content share a vector; else every name stands alone.
        first_file_no: File number of the first unit; shards of copies follow those of the units.
        metadata: The metadata columns.
        listing: Files of the whole listing, in order; of a name listed twice the first row counts.
        shards: Embedding shards by file number, those of the units among them.

    Raises:
        RuntimeError: The sums do not balance, or an id leads nowhere: the run must not publish.
    """
    done = f"{folder}/resolved.json"
    if store.has(done):
        return Resolved(**store.read_json(done))
    compare = Comparison(**store.read_json(f"{compared}/compared.json"))
    counts = Counts()
    for unit in units:
        counts.merge(unit["counts"])
    rows = sum(counts.by_status.values())
    touched = rows + compare.gone + compare.touched
    tasks = max(1, -(-rows // _TASK_ROWS))
    settling = Settling(
        compared=compared,
        folder=folder,
        embedded=embedded,
        units=len(units),
        at_once=max(1, -(-len(units) // tasks)),
        first_file_no=first_file_no,
        by_content=by_content,
        touched=touched,
        parts=compare.parts,
        contents=1 << (max(1, -(-touched // _PART_ROWS)) - 1).bit_length(),
        goes_on=compare.previous > 0,
        unread=bool(counts.by_reason[UNREADABLE]) and compare.previous > 0,
    )
    store.write_json(f"{folder}/{_SETTLING}", asdict(settling))
    store.write_json(settling.shards, {str(number): path for number, path in shards.items()})
    steps = _Steps(store, settling, compare, meet)
    steps.find_unread()
    contents = steps.settle()
    steps.conclude(ByName(settling, _placed(settling, contents), metadata, tuple(listing)))
    steps.pair()
    deleted = steps.deleted(contents)
    with store.write(f"{folder}/dead.npy") as pending:
        np.lib.format.write_array(pending.file, deleted, version=(1, 0), allow_pickle=False)
    resolved = steps.resolved(len(deleted))
    store.write_json(done, asdict(resolved))
    return resolved


def copy(
    store: Store, folder: str, *, meet: Meet, metadata: pa.Schema, schema: pa.Schema, run: str
) -> list[FileLine]:
    """Write rows whose name or metadata changed, with the vectors that they have.

    Returns:
        The manifest's lines of the shards.

    Raises:
        RuntimeError: Not all rows were written: the run must not publish.
    """
    resolved = Resolved(**store.read_json(f"{folder}/resolved.json"))
    if not resolved.copies:
        return []
    of = Settling(**store.read_json(f"{folder}/{_SETTLING}"))
    found = meet(
        Meeting(
            stage="copy",
            tasks=of.parts,
            deal=of.deal_named,
            take=Copying(of, run, metadata, schema).take,
            dealt=of.dealt,
            taken=f"{folder}/{COPIED}",
            sides=(COPIED,),
            rows=resolved.copies,
        )
    )
    rows = sum(record["rows"] for record in found.values())
    if (rows, len(found)) != (resolved.copies, resolved.copy_shards):
        raise RuntimeError(
            f"{resolved.copies:,} rows in {resolved.copy_shards:,} shards were to be copied, "
            f"{rows:,} in {len(found):,} were; nothing was published"
        )
    return [found[number]["shard"] for number in sorted(found)]


def _placed(of: Settling, contents: Mapping[int, Record]) -> Copies:
    """Where the copies of all partitions go."""
    counts = [contents[n]["copies"] if n in contents else 0 for n in range(of.contents)]
    return Copies.of(counts, of.first_copy)


def read_renames(store: Store, folder: str) -> dict[str, str]:
    """The names that some of the renamed files had before: those to be shown."""
    best: list[tuple[str, str]] = []
    for path in store.files(f"{folder}/{MOVED}", ".json"):
        best += [(uri, previous) for uri, previous in store.read_json(path)["some"]]
        hashes = uri_hashes(pa.array([uri for uri, _ in best], pa.string()))
        best = [best[place] for place in np.argsort(hashes, kind="stable")[:SAMPLES]]
    return dict(best)


@dataclass
class _Steps:
    """The steps of `resolve`, and what their records come to."""

    store: Store
    of: Settling
    compare: Comparison
    meet: Meet

    def __post_init__(self) -> None:
        self.unread = self.altered = self.renamed = self.carried = 0
        self.copies = self.shards = 0
        self.counts = Counts()
        self.names: list[Record] = []

    def _bring(self, stage: str, side: str, tasks: int, deal: Any, take: Any, **more: Any) -> Any:
        folder = "dealt/" + side if side in (CONTENTS, NAMES) else side
        return self.meet(
            Meeting(
                stage=f"settle: {stage}",
                tasks=tasks,
                deal=deal,
                take=take,
                dealt=self.of.dealt,
                taken=f"{self.of.folder}/{folder}",
                **{"sides": (side,), **more},
            )
        )

    def find_unread(self) -> None:
        """Take back the rows of files that were known and could not be read."""
        if not self.of.unread:
            return
        deal, take = Dealer(self.of).deal, Unread(self.of).take
        found = self._bring("unread", UNREAD, self.of.unit_tasks, deal, take, rows=self.of.touched)
        self.unread = sum(record["count"] for record in found.values())
        self.altered += sum(record["altered"] for record in found.values())

    def settle(self) -> dict[int, Record]:
        """Bring names of equal content together; the records of the partitions."""
        dealer, rows = Dealer(self.of), self.of.touched
        if self.of.by_content and self.of.goes_on:
            touched = Touched(self.of).take
            parts = self._bring(
                "touched contents", TOUCHED, dealer.touching, dealer.deal, touched, rows=rows
            )
            write_filter(self.store, self.of, parts)
        take, every = ByContent(self.of).take, rows + self.compare.previous // _LOOKED_AT
        found: dict[int, Record] = self._bring(
            "contents", CONTENTS, dealer.tasks, dealer.deal, take, rows=every
        )
        carried = range(dealer.touching, dealer.tasks)
        for record in finished(self.store, [self.of.record("dealt", n) for n in carried]):
            self.counts.merge(record["counts"])
        self.carried = sum(self.counts.by_status.values()) - self.counts.by_status[UNKNOWN]
        return found

    def conclude(self, by_name: ByName) -> None:
        """Compare the rows settled with those that they take the place of."""
        self.copies = by_name.copies.rows
        self.shards = by_name.copies.shards
        found = self._bring(
            "names",
            NAMES,
            by_name.tasks,
            by_name.deal,
            by_name.take,
            sides=(NAMES, LISTED),
            every=self.of.parts,
            rows=self.of.touched,
        )
        self.names = list(found.values())
        for record in self.names:
            self.counts.merge(record["counts"])
        self.altered += self.compare.shifted + sum(record["altered"] for record in self.names)

    def pair(self) -> None:
        """Find the renames."""
        changes = self._changed()
        if self.of.by_content and changes["added"] and changes["removed"]:
            deal, take = self.of.deal_named, Renames(self.of).take
            rows = changes["added"] + changes["removed"]
            found = self._bring("renames", MOVED, self.of.parts, deal, take, rows=rows)
            self.renamed = sum(record["renamed"] for record in found.values())

    # --- what it comes to -----------------------------------------------------------------------

    def deleted(self, contents: Mapping[int, Record]) -> Ids:
        """All ids that are deleted from now on, ascending: they are held, as tombstones are."""
        found = [np.empty(0, dtype=np.int64)]
        for record in [*contents.values(), *self.names]:
            if record["dead"]:
                found.append(np.load(self.store.once(FileRecord(**record["dead"]))))
        return np.unique(np.concatenate(found))

    def resolved(self, deleted: int) -> Resolved:
        """All of it.

        Raises:
            RuntimeError: A file is missing, or there is one too many.
        """
        check_balance(self.compare.listed - self.unread, self.counts)
        changes = self._changes()
        parts = {name: changes[name] for name in ("unchanged", "changed", "removed", "unknown")}
        if changes["previous"] != sum(parts.values()):
            text = ", ".join(f"{name} {count}" for name, count in parts.items())
            raise RuntimeError(
                f"the changes do not balance: {changes['previous']} files before, {text}; nothing "
                "was published"
            )
        return Resolved(
            self.counts.to_json(),
            changes,
            self.copies,
            deleted,
            self.altered,
            self.of.parts,
            self.unread,
            self.shards,
        )

    def _changed(self) -> Counter[str]:
        changed: Counter[str] = Counter()
        for record in self.names:
            changed.update(record["changes"])
        return changed

    def _changes(self) -> dict[str, int]:
        """Files by what became of them."""
        changed = self._changed()
        rehashed = sum(record["rehashed"] for record in self.names)
        return {
            "previous": self.compare.previous,
            "unchanged": self.carried + rehashed,
            **{name: changed[name] for name in ("changed", "removed", "added")},
            "unknown": self.counts.by_status[UNKNOWN],
            "renamed": self.renamed,
            "rehashed": rehashed,
        }
