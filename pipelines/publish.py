"""The last stages of a run: limits, ledger, report; then the manifest, then CURRENT."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lookalike.errors import NotPublishedError
from lookalike.faults import Faults
from lookalike.pipelines.config import PublishConfig
from lookalike.pipelines.measuring import Measuring
from lookalike.pipelines.report_data import write_report
from lookalike.pipelines.settle import Settled
from lookalike.pipelines.tasks import TaskRunner
from lookalike.reconcile.assembling import Ledger, ledger_of_run, samples_of, write_ledger_files
from lookalike.store import snapshot
from lookalike.store.attempts import Record
from lookalike.store.files import FileRecord
from lookalike.store.ledger import UNKNOWN, Counts, check_balance, read_ledger
from lookalike.store.manifest import FileLine, Manifest
from lookalike.store.objects import Store


def files_of(manifest: Manifest) -> int:
    """Files that a snapshot knows, those among them of which nobody could tell."""
    return Counts.of(manifest["counts"]).living


def out_of_reach(
    unknown: int, previous: int, limits: PublishConfig, details: Iterable[object] = ()
) -> str:
    """Why so many files of which nobody can tell stop publication; "" where they do not.

    Args:
        unknown: How many they are.
        previous: Files that the parent knew.
        limits: What stops publication.
        details: What their rows say, the first of which is the example; read only where they do.
    """
    limit = limits.max_unreadable_share
    share = unknown / previous if previous else 0.0
    if share <= limit:
        return ""
    shown = next((f"; for example {detail}" for detail in details if detail), "")
    return (
        f"not published: {unknown:,} of {previous:,} files cannot be reached ({share:.1%}), "
        f"publish.max_unreadable_share is {limit:.1%}{shown}; look whether all is mounted and "
        "readable, and run it again"
    )


def unknown_line(counts: Mapping[str, Any]) -> str:
    """The end of a run's last line: what could not be reached, and stays; "" where all could."""
    count = counts.get(UNKNOWN, 0)
    return f"; {count:,} unknown (not readable now, kept as they were)" if count else ""


def too_many_rejected(counts: Counts, limits: PublishConfig) -> bool:
    """Whether what was rejected stops publication."""
    return counts.rejected_share > limits.max_rejected_share or not counts.with_vector


def check_files(
    counts: Counts,
    previous: int,
    limits: PublishConfig,
    store: Store,
    units: Iterable[Record],
    noun: str,
) -> None:
    """Stop a run that rejected or could not reach too much: a broken mount is no empty index.

    Args:
        counts: Of the ledger.
        previous: Files that the parent knew.
        limits: What stops publication.
        store: The store's root.
        units: The records of the units, for an example.
        noun: What was to be indexed, in the plural.

    Raises:
        NotPublishedError: With the share, the limit and the most frequent reasons.
    """
    if line := out_of_reach(counts.by_status[UNKNOWN], previous, limits):
        raise NotPublishedError(line)
    if not too_many_rejected(counts, limits):
        return
    rejected, share = counts.by_status["rejected"], counts.rejected_share
    tried = counts.listed - counts.by_status["ignored"]
    reasons = ", ".join(f"{name} {count:,}" for name, count in counts.by_reason.most_common(5))
    ledger = next((unit["ledger"] for unit in units if unit["counts"]["rejected"]), None)
    path = ledger and store.local(FileRecord(**ledger))
    example = next(read_ledger(path, "rejected")) if path else None
    shown = f"; for example {example.uri}: {example.reason}: {example.detail}" if example else ""
    raise NotPublishedError(
        f"not published: {rejected:,} of {tried:,} {noun} were rejected ({share:.1%}), "
        f"publish.max_rejected_share is {limits.max_rejected_share:.1%}; {reasons}{shown}"
    )


def summary(manifest: Mapping[str, Any], new: bool) -> dict[str, Any]:
    """What `lookalike index --json` prints."""
    keys = (
        "counts",
        "changes",
        "index",
        "search",
        "certificate",
        "metric",
        "dim",
        "features",
        "parent",
        "stages",
    )
    return {
        "snapshot": manifest["name"],
        "new": new,
        **{key: manifest.get(key) for key in keys},
    }


@dataclass
class Publication:
    """What is left to do for a run whose manifest is complete but for ledger and report, if any."""

    task_runner: TaskRunner
    parent: Manifest | None
    settled: Settled
    commit: Callable[[Manifest], None]  # publishes what is finished in the store
    reports: bool = True

    def publish(self, manifest: Manifest, noun: str, listed: int) -> None:
        """Ledger, duplicates and report; then the manifest; then CURRENT."""
        store = self.task_runner.store
        folder, settled = f"snapshots/{manifest['name']}", self.settled
        counts = manifest["counts"]
        ledger = ledger_of_run(
            store,
            folder,
            settled.compared,
            settled.resolved,
            (line["file_no"] for line in snapshot.files_of(manifest, "embedding")),
            settled.moving,
        )
        lines = write_ledger_files(store, ledger, self.task_runner.meet, Counts.of(counts).living)
        check_balance(listed - settled.unread, Counts.of(counts))
        _check_rows(counts, lines)
        manifest["files"] += lines
        if self.reports:
            manifest["files"] += self._report(folder, manifest, ledger)
        self.commit(manifest)
        said = ", ".join(
            f"{counts[name]:,} {name}"
            for name in ("embedded", "unchanged", "duplicate", "rejected", "ignored", "removed")
            if counts[name] or name not in ("unchanged", "removed")
        )
        self.task_runner.progress.say(
            f"published {manifest['name']}: {counts['listed']:,} {noun}: {said}"
            f"{unknown_line(counts)}"
        )

    def _report(self, folder: str, manifest: Manifest, ledger: Ledger) -> list[FileLine]:
        """Write the report, which says of its own faults what there is to say."""
        store, faults = self.task_runner.store, Faults(self.task_runner.progress.say)
        shown = faults.spare("samples", lambda: samples_of(store, ledger), {})
        measuring = Measuring(self.task_runner)
        return write_report(store, folder, manifest, self.parent, shown, faults, measuring)


def _check_rows(counts: Mapping[str, Any], lines: list[FileLine]) -> None:
    """The ledger that was written has the rows that were counted.

    Raises:
        RuntimeError: It has not; the run must not publish.
    """
    rows = sum(line["rows"] for line in lines if line["kind"] == "ledger")
    counted = counts["listed"] + counts["removed"] + counts[UNKNOWN]
    if rows != counted:
        raise RuntimeError(
            f"the ledger has {rows:,} rows, {counted:,} were counted; nothing was published"
        )
