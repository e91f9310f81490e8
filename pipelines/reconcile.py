"""The exchanges of a scan: the listing against the parent's ledger, units, contents that are known.

Each leaves files in the run's scratch, and is done once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lookalike.pipelines.tasks import TaskRunner
from lookalike.reconcile.compared import Comparison, totals_of
from lookalike.reconcile.comparing import Comparing
from lookalike.reconcile.known import Knowing, sieve_bits
from lookalike.sources.listing import Listing
from lookalike.sources.units import Cutting, Units
from lookalike.sources.vector_listing import LISTED, RENAMED, REPEATED, VectorListing
from lookalike.sources.vector_pieces import VectorCutting
from lookalike.store.attempts import Record
from lookalike.store.meeting import Deal, Meeting, Take

_NAMES_FOR_ONE = 20  # rows of tables of vectors that are listed, or cut, while one is compared
_READ_FOR_ONE = 8  # rows of the ledger, of which nearly all are only read, while one is compared


@dataclass(frozen=True)
class Reconciling:
    """Where the steps run.

    Attributes:
        task_runner: Has tasks of the run done.
    """

    task_runner: TaskRunner

    def compare(self, plan: Comparing) -> Comparison:
        """Compare a listing with the parent's ledger."""
        found = totals_of(self.task_runner.store, plan.folder)
        if found is None:
            folders = (f"{plan.folder}/dealt", f"{plan.folder}/parts")
            steps = (plan.deal, plan.take)
            parts = self._run("compare", steps, len(plan.tasks), folders, plan.rows)
            found = plan.finish(self.task_runner.store, parts)
        return found

    def cut(
        self,
        listing: Listing,
        folder: str,
        unit_rows: int,
        parent: Sequence[Mapping[str, Any]] = (),
    ) -> Units:
        """Cut files to be read into units, and find what of the parent's ledger they may be."""
        bits = sieve_bits(listing.rows) if parent else 0
        plan = Cutting.of(self.task_runner.store, listing, folder, unit_rows, bits)
        folders = (f"{folder}/dealt", f"{folder}/parts")
        cut = self._run("cut", (plan.deal, plan.take), len(plan.tasks), folders, listing.rows)
        units = plan.finish(cut)
        if parent and units:
            read = sum(line["rows"] for line in parent) // _READ_FOR_ONE
            known = Knowing.of(self.task_runner.store, units, cut, parent)
            folders = (f"{known.folder}/dealt", f"{known.folder}/parts")
            self._run("known", (known.deal, known.take), known.tasks, folders, listing.rows + read)
        for name in ("dealt", "bits", "known/dealt"):
            self.task_runner.store.delete_below(f"{folder}/{name}")
        return units

    def list_vectors(self, plan: VectorListing) -> tuple[Listing, int]:
        """List tables of vectors; also how many rows repeat the uri of an earlier one."""
        listed, repeated, found, renamed = (
            f"{plan.folder}/{name}" for name in (LISTED, REPEATED, "found", RENAMED)
        )
        steps, worth = (plan.deal, plan.take), plan.rows // _NAMES_FOR_ONE
        parts = self._run("list", steps, len(plan.tasks), (listed, repeated), worth)
        repeats, anew = sum(part["repeats"] for part in parts.values()), dict[int, Record]()
        if repeats:
            steps = (plan.deal_repeated, plan.take_repeated)
            anew = self._run("list (repeats)", steps, plan.parts, (found, renamed), repeats)
        return plan.finish(self.task_runner.store, anew), repeats

    def cut_vectors(self, plan: VectorCutting, rows: int) -> Units:
        """Cut rows of tables of vectors into units."""
        if not rows:
            return plan.finish({})
        folders = (f"{plan.folder}/dealt", f"{plan.folder}/parts")
        cut = self._run(
            "cut", (plan.deal, plan.take), len(plan.tasks), folders, rows // _NAMES_FOR_ONE
        )
        self.task_runner.store.delete_below(folders[0])
        return plan.finish(cut)

    def _run(
        self, stage: str, steps: tuple[Deal, Take], tasks: int, folders: tuple[str, str], rows: int
    ) -> dict[int, Record]:
        meeting = Meeting(stage, tasks, *steps, *folders, rows=rows)
        return self.task_runner.meet(meeting)
