"""Encode embedding shards into parts and group those by list; templates reach workers as files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
from apache_beam.utils.shared import Shared

from lookalike.lists.encoding import EncodeTask, encode
from lookalike.lists.grouping import GroupTask, group
from lookalike.quality.recall import ExactNeighbours
from lookalike.training.template import Template, load_template, set_threads
from transforms.counters import count, timed


@dataclass
class EncodeParts(beam.PTransform):
    """Encode groups of embedding shards, each into one part of the index and of the truth.

    Yields the number of each finished task; a retry overwrites itself.

    Attributes:
        store: The store's root, reachable from every worker.
        template: Folder of the template below it.
        sha256: What the template's bytes must hash to.
        queries: The held-out queries (ExactNeighbours without neighbours), relative to the store.
        threads: Faiss threads per worker process.
    """

    store: str
    template: str
    sha256: str
    queries: str
    threads: int = 1

    def expand(self, tasks: beam.PCollection[EncodeTask]) -> beam.PCollection[int]:
        """PCollection[EncodeTask] -> PCollection[int]."""
        return tasks | "SpreadParts" >> beam.Reshuffle() | "EncodePart" >> beam.ParDo(
            _EncodeFn(self.store, self.template, self.sha256, self.threads, self.queries)
        )  # fmt: skip


@dataclass
class GroupLists(beam.PTransform):
    """Write index shards, each one range of lists from all parts.

    Yields the number of each finished task; a retry overwrites itself.

    Attributes:
        store: The store's root, reachable from every worker.
        template: Folder of the template below it.
        sha256: What the template's bytes must hash to.
    """

    store: str
    template: str
    sha256: str

    def expand(self, tasks: beam.PCollection[GroupTask]) -> beam.PCollection[int]:
        """PCollection[GroupTask] -> PCollection[int]."""
        return tasks | "SpreadRanges" >> beam.Reshuffle() | "GroupLists" >> beam.ParDo(
            _GroupFn(self.store, self.template, self.sha256)
        )  # fmt: skip


class _TemplateFn(beam.DoFn):
    """A DoFn with the process's one copy of the template."""

    def __init__(self, store: str, template: str, sha256: str, threads: int = 1) -> None:
        self._store, self._folder, self._sha256 = Path(store), template, sha256
        self._threads = threads
        self._shared = Shared()

    def setup(self) -> None:
        set_threads(self._threads)
        folder = self._store / self._folder

        def load() -> Template:
            return load_template(folder, self._sha256)

        self._template: Template = self._shared.acquire(load)


class _EncodeFn(_TemplateFn):
    def __init__(self, store: str, template: str, sha256: str, threads: int, queries: str) -> None:
        super().__init__(store, template, sha256, threads)
        self._queries = queries

    def process(self, task: EncodeTask) -> Iterator[int]:
        path = self._store / (task.queries or self._queries)
        queries = ExactNeighbours.from_bytes(path.read_bytes())
        with timed("encode"):
            encode(task, self._store, self._template, queries)
        count("encode", "parts")
        yield task.number


class _GroupFn(_TemplateFn):
    def process(self, task: GroupTask) -> Iterator[int]:
        with timed("group"):
            group(task, self._store, self._template)
        count("group", "shards")
        yield task.number
