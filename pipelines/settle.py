"""Between embedding and indexing: which row stands for which names, and where each row lies.

Names are settled by content, rows whose name changed are written again with their vector, and where
too many rows are deleted or too many files small, embeddings are compacted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lookalike.distances import Ids
from lookalike.pipelines.job import Job
from lookalike.reconcile.resolving import copy, resolve
from lookalike.reconcile.settling import Resolved
from lookalike.store import shard_format, snapshot
from lookalike.store.attempts import Record
from lookalike.store.compacting import Compacting, CompactTask, needs_compaction, plan_compaction
from lookalike.store.manifest import FileLine
from lookalike.store.moving import Moved, Moving
from lookalike.store.runs import Plan
from lookalike.store.tombstones import read_tombstones, write_tombstones


@dataclass(frozen=True)
class Settled:
    """What the run's rows and names are.

    Attributes:
        counts: Of the ledger, as `Counts.to_json` has them.
        changes: Of files, compared with the parent.
        stands: Whether the parent says the same, so that nothing is to be published.
        files: The manifest's lines of embedding shards and tombstones.
        added: Those of embedding shards that this run wrote.
        deleted: Ids of rows in the shards that no name stands for, ascending.
        vectors: Living rows.
        next_file_no: The number that the next shard will bear.
        compared: Folder of the comparison, relative to the store.
        resolved: Folder of the resolution.
        moved: New ids of rows, where embeddings were compacted.
        moving: The same, for tasks.
        unread: Files listed that could not be read, and are unknown.
    """

    counts: dict[str, Any]
    changes: dict[str, int]
    stands: bool
    files: list[FileLine]
    added: list[FileLine]
    deleted: Ids
    vectors: int
    next_file_no: int
    compared: str
    resolved: str
    moved: Moved | None
    moving: Moving | None
    unread: int


def settle(job: Job, plan: Plan, units: Sequence[Record]) -> Settled:
    """Resolve names, copy rows, compact; each part is skipped as far as it is done.

    Args:
        job: The run.
        plan: What its scan fixed.
        units: The records of its units, in order.
    """
    stage = _Stage(job, plan, units)
    resolved = stage.resolve()
    copied = stage.copy()
    added = [*stage.embedded, *copied]
    lines, deleted = [*stage.kept, *added], stage.deleted()
    next_file_no = plan.first_file_no + plan.units + len(copied)
    moved: Moved | None = None
    moving: Moving | None = None
    stands = resolved.nothing_happened and job.same_settings()  # nothing will be published
    tasks = [] if stands else stage.plan_compaction(lines, added, next_file_no)
    if tasks:
        moved, moving = Moved(tasks, deleted), Moving(tuple(tasks), stage.all_deleted)
        made = stage.compact(tasks)
        lines, added = (
            [line for line in old if line["file_no"] not in moved.files] + made
            for old in (lines, added)
        )
        deleted, next_file_no = moved.tombstones, next_file_no + len(tasks)
    return Settled(
        dict(resolved.counts),
        dict(resolved.changes),
        stands,
        [*lines, *([] if stands else stage.tombstones(deleted))],
        added,
        deleted,
        sum(line["rows"] for line in lines) - len(deleted),
        next_file_no,
        f"{job.scratch.folder}/compared",
        stage.folder,
        moved,
        moving,
        resolved.unread,
    )


@dataclass
class _Stage:
    job: Job
    plan: Plan
    units: Sequence[Record]

    def __post_init__(self) -> None:
        self.store, self.scratch = self.job.store, self.job.scratch
        self.folder = f"{self.scratch.folder}/settled"
        self.all_deleted = f"{self.folder}/all-dead.npy"
        base = self.job.base
        self.kept: list[FileLine] = snapshot.files_of(base, "embedding") if base else []
        self.embedded: list[FileLine] = [unit["shard"] for unit in self.units if unit["shard"]]

    def resolve(self) -> Resolved:
        plan, lines = self.plan, [*self.kept, *self.embedded]
        return resolve(
            self.store,
            self.units,
            f"{self.scratch.folder}/embedded",
            f"{self.scratch.folder}/compared",
            self.folder,
            meet=self.job.task_runner.meet,
            by_content=self.job.by_content,
            first_file_no=plan.first_file_no,
            metadata=plan.metadata,
            listing=plan.listing,
            shards={line["file_no"]: line["path"] for line in lines},
        )

    def copy(self) -> list[FileLine]:
        """Rows whose name or metadata changed, with the vectors that they have."""
        job, metadata = self.job, self.plan.metadata
        schema = shard_format.schema(
            job.made_by()["dim"], metadata, job.properties, job.stored_as()
        )
        lines = copy(
            self.store,
            self.folder,
            meet=self.job.task_runner.meet,
            metadata=metadata,
            schema=schema,
            run=self.scratch.name,
        )
        self.scratch.sweep()
        return lines

    def deleted(self) -> Ids:
        """Ids of all rows that no name stands for, before compaction."""
        base = self.job.base
        lines = snapshot.files_of(base, "tombstones") if base else []
        before = read_tombstones(self.store.local(line["path"]) for line in lines)
        return np.union1d(before, np.load(self.store.local(f"{self.folder}/dead.npy")))

    # --- compaction -----------------------------------------------------------------------------

    def plan_compaction(
        self, lines: list[FileLine], added: list[FileLine], next_file_no: int
    ) -> list[CompactTask]:
        """The tasks; none where what there is will do."""
        job, deleted = self.job, self.deleted()
        reasons = needs_compaction(job.base, lines, added, deleted, job.config.compact)
        if not reasons:
            return []
        job.progress.say(f"compact: {'; '.join(reasons)}")
        return plan_compaction(lines, deleted, next_file_no, self.scratch.name, self.scratch.folder)

    def compact(self, tasks: Sequence[CompactTask]) -> list[FileLine]:
        """The shards written anew."""
        write_tombstones(self.store, self.all_deleted, self.deleted())
        stage, work = ("compact", "embedding shards"), Compacting(self.all_deleted)
        done = self.job.task_runner.run(stage, tasks, work)
        return [record["shard"] for record in done if record["shard"]]

    def tombstones(self, deleted: Ids) -> list[FileLine]:
        """The manifest's line, where any row is deleted."""
        if not len(deleted):
            return []
        path = f"snapshots/{self.plan.snapshot}/tombstones.npy"
        record = write_tombstones(self.store, path, deleted)
        return [record.line("tombstones")]
