"""The last stages of a run: limits, ledger, report; then the manifest, then CURRENT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from lookalike.errors import NotPublishedError
from lookalike.pages.report import render_report
from lookalike.records import Unit
from lookalike.store import snapshot
from lookalike.store.duplicates import write_duplicates
from lookalike.store.ledger import (
    Counts,
    LedgerRow,
    ledger_tables,
    read_ledger,
    write_ledger_tables,
)
from lookalike.store.other_names import other_names
from lookalike.store.runs import Plan, Run
from lookalike.store.storage import write_bytes
from pipelines.config import PublishConfig
from pipelines.progress import Progress

_LEDGER_FILE_ROWS = 1_000_000
_EXAMPLES = 4  # per reason


def too_many_rejected(counts: Counts, limits: PublishConfig) -> bool:
    """Whether what was rejected stops publication."""
    return counts.rejected_share > limits.max_rejected_share or not counts.by_status["embedded"]


def check_rejects(
    counts: Counts, limits: PublishConfig, scratch: Run, plan: Plan, noun: str
) -> None:
    """Stop a run that rejected too much: a broken mount must not become an empty index.

    Raises:
        NotPublishedError: With the share, the limit and the most frequent reasons.
    """
    if not too_many_rejected(counts, limits):
        return
    rejected, share = counts.by_status["rejected"], counts.rejected_share
    tried = counts.listed - counts.by_status["ignored"]
    reasons = ", ".join(f"{name} {count:,}" for name, count in counts.by_reason.most_common(5))
    example = next(_rejected(scratch, plan), None)
    shown = f"; for example {example.uri}: {example.reason}: {example.detail}" if example else ""
    raise NotPublishedError(
        f"not published: {rejected:,} of {tried:,} {noun} were rejected ({share:.1%}), "
        f"publish.max_rejected_share is {limits.max_rejected_share:.1%}; {reasons}{shown}"
    )


def summary(manifest: Mapping[str, Any], new: bool) -> dict[str, Any]:
    """What `lookalike index --json` prints."""
    keys = ("counts", "index", "search", "certificate", "metric", "dim", "features", "parent",
            "stages")  # fmt: skip
    return {
        "snapshot": manifest["name"],
        "new": new,
        **{key: manifest.get(key) for key in keys},
    }


@dataclass
class Publication:
    """What is left to do for a run whose manifest is complete but for ledger and report."""

    store: Path
    scratch: Run
    plan: Plan
    progress: Progress

    def publish(self, manifest: dict[str, Any], noun: str) -> None:
        """Ledger, duplicates and report; then the manifest; then CURRENT."""
        folder = f"snapshots/{manifest['name']}"
        manifest["files"] += self._write_ledger(folder)
        manifest["files"] += self._write_duplicates(folder)
        examples = _examples(_rejected(self.scratch, self.plan))
        report = write_bytes(
            self.store, f"{folder}/report.html", render_report(manifest, examples).encode()
        )
        manifest["files"].append({**report.to_json(), "kind": "report"})
        snapshot.publish(self.store, manifest)
        counts = manifest["counts"]
        parts = ", ".join(f"{counts[name]:,} {name}" for name in
                          ("embedded", "duplicate", "rejected", "ignored"))  # fmt: skip
        self.progress.say(f"published {manifest['name']}: {counts['listed']:,} {noun}: {parts}")

    def _write_ledger(self, folder: str) -> list[dict[str, Any]]:
        """The units' ledgers one after another, as files of about _LEDGER_FILE_ROWS."""
        tables = chain.from_iterable(
            ledger_tables(self.store / unit.ledger) for unit in self._units()
        )
        lines: list[dict[str, Any]] = []
        for first in tables:  # each takes its file's other tables from the same iterator
            path = f"{folder}/ledger/{len(lines):05d}.parquet"
            part = _until(_LEDGER_FILE_ROWS, first, tables)
            record, count = write_ledger_tables(self.store, path, part)
            lines.append({**record.to_json(), "kind": "ledger", "rows": count})
        return lines

    def _write_duplicates(self, folder: str) -> list[dict[str, Any]]:
        names = other_names(
            self.store, self._units(), f"{self.scratch.folder}/names", crossing=True
        )
        record, rows = write_duplicates(self.store, f"{folder}/duplicates.parquet", names)
        return [{**record.to_json(), "kind": "duplicates", "rows": rows}]

    def _units(self) -> list[Unit]:
        return [self.scratch.unit(number, self.plan) for number in range(self.plan.units)]


def _until(rows: int, first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The first table and as many others as it takes to have so many rows."""
    there = first.num_rows
    yield first
    while there < rows and (table := next(rest, None)) is not None:
        there += table.num_rows
        yield table


def _examples(rows: Iterable[LedgerRow]) -> list[tuple[str, str, str]]:
    """A few rejected files of every reason, for the report."""
    shown: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        if len(shown.setdefault(row.reason, [])) < _EXAMPLES:
            shown[row.reason].append((row.uri, row.reason, row.detail))
    return [example for reason in sorted(shown) for example in shown[reason]]


def _rejected(scratch: Run, plan: Plan) -> Iterator[LedgerRow]:
    for number in range(plan.units):
        yield from read_ledger(scratch.store / scratch.unit(number, plan).ledger, "rejected")
