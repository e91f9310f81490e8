"""A run: what was asked for, what it goes on from, and what differs by what is indexed."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from lookalike.pipelines.config import Config
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import EngineError, RunnerSpec, WorkerDiedError
from lookalike.pipelines.tasks import TaskRunner, perform
from lookalike.reconcile.one_partition import LeftOut, nothing_left_out
from lookalike.sources.listing import Listing
from lookalike.store import snapshot
from lookalike.store.attempts import Record, finished
from lookalike.store.manifest import FileLine, Manifest
from lookalike.store.objects import Store
from lookalike.store.retention import next_file_no
from lookalike.store.runs import Plan, Run
from lookalike.store.storage import is_remote, path_from_uri
from lookalike.work import Work

_TRIES = 3  # of the embed stage, when workers are lost
_WORTH_A_PROCESS = 256  # files: fewer are done before another process has loaded its libraries


@dataclass(frozen=True)
class Again:
    """What to look at again though its size and version are the same.

    Attributes:
        rehash: Read every file, and let its content decide.
        rejects: Rejected files to try again: None for none, empty for all, else of these reasons.
    """

    rehash: bool = False
    rejects: frozenset[str] | None = None

    def to_json(self) -> dict[str, Any]:
        """What of it is asked for; nothing where nothing is."""
        asked: dict[str, Any] = {"rehash": True} if self.rehash else {}
        return asked if self.rejects is None else {**asked, "rejects": sorted(self.rejects)}


@dataclass
class Job(ABC):
    """A run that has been checked and holds its store: scan -> embed -> train -> … -> publish."""

    config: Config
    specs: Sequence[str]
    store: Store
    parent: Manifest | None
    progress: Progress
    again: Again = field(default_factory=Again, kw_only=True)
    # publishes what is finished in the store, see lookalike.pipelines.stores.StoreHandle
    commit: Callable[[Manifest], None] = field(kw_only=True)

    noun: ClassVar[str] = "files"
    wanted: ClassVar[str] = "images"  # what files may turn out not to be
    stage: ClassVar[str] = "embed"
    by_content: ClassVar[bool] = True  # whether equal contents share a row

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
        self.first_file_no = self.parent["next_file_no"] if self.parent else 0
        self.scratch = self._run()
        if self.scratch.plan() is None:
            # After a rollback, numbers are used already: files are never written again.
            self.first_file_no = next_file_no(self.store, self.parent)
            self.scratch = self._run()
        self.base = self.parent if self.goes_on() else None

    def _run(self) -> Run:
        parent = self.parent["name"] if self.parent else None
        asked = {"parent": parent, "file_no": self.first_file_no, **self.again.to_json()}
        return Run.for_request(self.store, {**self.settings, **asked})

    @property
    def task_runner(self) -> TaskRunner:
        """Has tasks of this run done."""
        return TaskRunner(self.scratch, self.config.runner, self.progress)

    def goes_on(self) -> bool:
        """Whether the parent's vectors are what this run would make: then it adds to them."""
        if self.parent is None:
            return False
        made = self.parent["request"]
        same = ("metric", "fingerprints", "dtype", "vectors", "dim")
        return all(made.get(name) == self.settings.get(name) for name in same)

    # --- what differs by what is indexed --------------------------------------------------------

    @abstractmethod
    def fingerprints(self) -> tuple[str, str]:
        """What made the vectors: of the model, and of what came before it."""

    @abstractmethod
    def request(self) -> dict[str, Any]:
        """What else decides what the vectors are."""

    @abstractmethod
    def list_rows(self, folder: str) -> tuple[Listing, pa.Schema]:
        """List the sources into files below a folder: the listing, and the metadata columns."""

    @abstractmethod
    def cut(self, candidates: Listing) -> tuple[int, ...]:
        """Cut what is to be looked at into units; see `Plan.cut`."""

    @abstractmethod
    def work(self, plan: Plan) -> Work:
        """What the stage that writes shards does to a unit, by number."""

    @abstractmethod
    def made_by(self) -> Manifest:
        """The manifest's features and dim."""

    @abstractmethod
    def stored_as(self) -> str:
        """The type of the components of stored vectors: float32 or float16."""

    @property
    def left_out(self) -> LeftOut:
        """Says by which rule of the config a name is not to be listed; it is pickled."""
        return nothing_left_out

    def prepare(self, plan: Plan) -> None:
        """Get ready what the units need."""
        return

    def convert(self) -> None:
        """Bring `base` to what this run would make, where it is not."""
        return

    @property
    def converts(self) -> bool:
        """Whether there is anything to bring to it."""
        return False

    def more_lines(self) -> list[FileLine]:
        """The manifest's lines for files that are not of the units."""
        return []

    def forgotten(self) -> list[FileLine]:
        """The manifest's lines for the list of what must not come back."""
        return snapshot.files_of(self.parent, "forgotten") if self.parent else []

    # --- what was asked for ---------------------------------------------------------------------

    def whole_request(self) -> dict[str, Any]:
        """The request as the manifest keeps it: with what was asked of the index."""
        return {**self.settings, "index": dict(self.config.index)}

    def same_settings(self) -> bool:
        """Whether the parent was made as this run would be; where things lie is no part of it."""
        if self.base is None:
            return False
        made, wanted = self.base["request"], self.whole_request()
        names = (made.keys() | wanted.keys()) - {"sources", "models", "listing"}
        return all(made.get(name) == wanted.get(name) for name in names)

    # --- embed ----------------------------------------------------------------------------------

    def embed(self, plan: Plan) -> list[Record]:
        """The records of all units; those without are embedded, again where a worker was lost."""
        for tries_left in reversed(range(_TRIES)):
            done = self.scratch.done("embedded")
            pending = [number for number in range(plan.units) if number not in done]
            if not pending:
                break
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
        records = finished(self.store, [unit.done for unit in self.scratch.units(plan)])
        self.scratch.sweep()
        if misstated := sum(record.get("misstated", 0) for record in records):
            self.progress.say(
                f"{self.stage}: {misstated:,} {self.noun} are not of the size that was listed "
                "(by a manifest, or before they changed); what was read counts"
            )
        return records

    def runner_for(self, plan: Plan) -> RunnerSpec:
        """The engine, with no more processes than what there is to do is worth."""
        return self.config.runner.worth(plan.candidates, _WORTH_A_PROCESS)

    def _embed_units(self, pending: Sequence[int], plan: Plan) -> None:
        start = self.scratch.files_done()
        if start:
            self.progress.say(f"{self.stage}: {start:,} {self.noun} are done already")
        with self.progress.stage(
            self.stage, self.noun, plan.candidates, self.scratch.files_done, start
        ):
            perform(self.work(plan), pending, self.runner_for(plan))


def _absolute(spec: str) -> str:
    return spec if is_remote(spec) else os.path.abspath(os.fsdecode(path_from_uri(spec)))
