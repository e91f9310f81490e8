"""What every run has in common: its stages, their order, and how it is continued.

Each stage leaves finished files and says so last, so a run killed at any instant is continued by
the same command. The driver holds counts and names; vectors, paths and ledger rows stay in files.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import apache_beam as beam
import pyarrow as pa

from lookalike import __version__
from lookalike.errors import RequestError
from lookalike.records import Unit
from lookalike.store.ledger import Counts, check_balance
from lookalike.store.runs import Plan, Run, hold
from lookalike.store.storage import is_remote, path_from_uri
from pipelines import finish
from pipelines.build import IndexBuild
from pipelines.config import Config
from pipelines.engine import EngineError, WorkerDiedError
from pipelines.progress import Progress, timed
from pipelines.runner import run

_TRIES = 3  # of the embed stage, when workers are lost


class NothingToIndexError(RequestError):
    """There are files, but no image among them."""


@dataclass(frozen=True)
class Scanned:
    """What a scan found.

    Attributes:
        listed: Rows that the ledger will have.
        digest: sha256 of what was listed.
        units: Work units, whose files are written.
        metadata: The metadata columns.
    """

    listed: int
    digest: str
    units: int
    metadata: pa.Schema


@contextmanager
def writing(store: Path) -> Iterator[None]:
    """Hold the store, and clear away what a killed run left half written.

    Raises:
        StoreBusyError: Another run holds it.
    """
    with hold(store):
        for leftover in store.rglob(".*.tmp"):  # a killed run's; nobody else writes now
            leftover.unlink(missing_ok=True)
        yield


@dataclass
class Job(ABC):
    """A run that has been checked and holds its store: scan -> embed -> train -> … -> publish."""

    config: Config
    specs: Sequence[str]
    store: Path
    parent: dict[str, Any] | None
    progress: Progress

    noun: ClassVar[str] = "files"
    wanted: ClassVar[str] = "images"  # what files may turn out not to be
    stage: ClassVar[str] = "embed"

    def __post_init__(self) -> None:
        """Find the run that this request starts or continues."""
        fingerprints = self.fingerprints()
        self.properties = {
            "lookalike.model_fingerprint": fingerprints[0],
            "lookalike.preprocessing_fingerprint": fingerprints[1],
        }
        self.settings = {
            "metric": self.config.metric,
            **self.request(),
            "sources": [_absolute(spec) for spec in self.specs],
            "fingerprints": list(fingerprints),
        }
        parent = self.parent["name"] if self.parent else None
        self.scratch = Run.for_request(self.store, {**self.settings, "parent": parent})

    # --- what differs by what is indexed --------------------------------------------------------

    @abstractmethod
    def fingerprints(self) -> tuple[str, str]:
        """What made the vectors: of the model, and of what came before it."""

    @abstractmethod
    def request(self) -> dict[str, Any]:
        """What else decides what the vectors are."""

    @abstractmethod
    def list_units(self) -> Scanned:
        """List the sources and write the unit files."""

    @abstractmethod
    def transform(self, plan: Plan) -> beam.PTransform:
        """PCollection[Unit] -> PCollection[int]: the stage that writes shards."""

    @abstractmethod
    def made_by(self) -> dict[str, Any]:
        """The manifest's features and dim."""

    def prepare(self, plan: Plan) -> None:
        """Get ready what the units need."""
        return

    def merge(self, plan: Plan) -> None:
        """Do what is to be done once all units are."""
        return

    def more_lines(self) -> list[dict[str, Any]]:
        """The manifest's lines for files that are not of the units."""
        return []

    # --- the stages -----------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """All stages; each is skipped as far as its files say that it is done."""
        seconds: dict[str, float] = {}
        with timed(seconds, "scan"):
            plan = self.scan()
        if self.parent and self.parent.get("request") == self._request(plan):
            self.scratch.finish()
            self.progress.say(
                f"nothing changed since {self.parent['name']}: {plan.listed:,} {self.noun}, "
                "it stands"
            )
            return finish.summary(self.parent, new=False)
        with timed(seconds, self.stage):
            self.embed(plan)
            self.merge(plan)
        counts, files = self.collect(plan)
        if not files and not counts.by_status["rejected"]:
            raise NothingToIndexError(
                f"none of the {plan.listed:,} {self.noun} is an image (by content or by name)"
            )
        finish.check_rejects(counts, self.config.publish, self.scratch, plan, self.wanted)
        manifest = {**self.manifest(plan, counts, files), "stages": seconds}
        IndexBuild(
            self.store, self.scratch, self.config, self.progress, manifest, self.parent
        ).run()
        finish.Publication(self.store, self.scratch, plan, self.progress).publish(
            manifest, self.noun
        )
        self.scratch.finish()
        return finish.summary(manifest, new=True)

    def scan(self) -> Plan:
        """List the sources and cut what they hold into work units."""
        found = self.scratch.plan()
        if found is not None and self._rejected(found):
            self.progress.say("the last run rejected too many files; scanning and reading anew")
            found = None
        if found is not None:
            self.progress.say(
                f"continuing the run scanned at {found.started}: {found.listed:,} {self.noun} in "
                f"{found.units:,} units"
            )
            return found
        self.scratch.start()
        started = datetime.now(timezone.utc)
        scanned = self.list_units()
        plan = Plan(
            snapshot=f"{started:%Y%m%dT%H%M%SZ}-{self.scratch.name[:6]}",
            started=started.isoformat(timespec="seconds"),
            listed=scanned.listed,
            listing_digest=scanned.digest,
            units=scanned.units,
            first_file_no=self.parent["next_file_no"] if self.parent else 0,
            metadata=scanned.metadata,
        )
        self.scratch.commit_plan(plan)
        self.progress.say(f"scan: {plan.listed:,} {self.noun} in {plan.units:,} work units")
        return plan

    def _rejected(self, plan: Plan) -> bool:
        """Has the run to be continued ended by the reject limit, and would it do so again?

        Then its sources are to be read again, as they may have been mended, and what it made goes.
        """
        done = self.scratch.done("embedded")
        if len(done) < plan.units:
            return False
        counts = Counts()
        for unit in done.values():
            counts.merge(unit["counts"])
        if not finish.too_many_rejected(counts, self.config.publish):
            return False
        for unit in done.values():
            if unit["shard"]:
                (self.store / unit["shard"]["path"]).unlink(missing_ok=True)
        return True

    def embed(self, plan: Plan) -> None:
        """Embed the units that are not done, in parallel; again where a worker was lost."""
        self.prepare(plan)
        for tries_left in reversed(range(_TRIES)):
            done = self.scratch.done("embedded")
            pending = [self.scratch.unit(i, plan) for i in range(plan.units) if i not in done]
            if not pending:
                return
            try:
                self._embed_units(pending, plan)
            except WorkerDiedError as error:
                if not tries_left:
                    raise EngineError(
                        f"{error}, for the {_TRIES}. time; run the same command again, it "
                        "continues where it was"
                    ) from error
                self.progress.say(
                    f"{self.stage}: {error}; going on with the units that are not done"
                )

    def _embed_units(self, pending: Sequence[Unit], plan: Plan) -> None:
        start = self.scratch.files_done()
        if start:
            self.progress.say(f"{self.stage}: {start:,} {self.noun} are done already")
        transform = self.transform(plan)

        def build(pipeline: beam.Pipeline) -> None:
            _ = pipeline | "Units" >> beam.Create(pending, reshuffle=False) | "Embed" >> transform

        with self.progress.stage(
            self.stage, self.noun, plan.listed, self.scratch.files_done, start
        ):
            run(build, self.config.runner)

    def collect(self, plan: Plan) -> tuple[Counts, list[dict[str, Any]]]:
        """Totals and files of all units; every listed file must be in the ledger."""
        counts, files = Counts(), []
        done = self.scratch.done("embedded")
        missing = [number for number in range(plan.units) if number not in done]
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {plan.units} units did not finish (the first is "
                f"{missing[0]}); run the same command again"
            )
        for unit in done.values():
            counts.merge(unit["counts"])
            if unit["shard"]:
                files.append(unit["shard"])
        check_balance(plan.listed, counts)
        return counts, files

    def manifest(self, plan: Plan, counts: Counts, files: list[dict[str, Any]]) -> dict[str, Any]:
        """What is known before the index is built."""
        return {
            "name": plan.snapshot,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "scanned": plan.started,
            "lookalike": __version__,
            "parent": self.parent["name"] if self.parent else None,
            "request": self._request(plan),
            "sources": list(self.specs),
            "metric": self.config.metric,
            "model_fingerprint": self.properties["lookalike.model_fingerprint"],
            "preprocessing_fingerprint": self.properties["lookalike.preprocessing_fingerprint"],
            "counts": {**counts.to_json(), "vectors": sum(line["rows"] for line in files)},
            "next_file_no": plan.first_file_no + plan.units,
            "files": [*self.more_lines(), *files],
            **self.made_by(),
        }

    def _request(self, plan: Plan) -> dict[str, Any]:
        index = dict(self.config.index)
        return {**self.settings, "index": index, "listing": plan.listing_digest}


def _absolute(spec: str) -> str:
    return spec if is_remote(spec) else os.path.abspath(os.fsdecode(path_from_uri(spec)))
