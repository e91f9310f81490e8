"""Encode embedding shards into index shards, in parallel; templates reach workers as files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
from apache_beam.utils.shared import Shared

from lookalike.index.encoding import EncodeTask, encode
from lookalike.index.recall import ExactNeighbours
from lookalike.index.template import Template, load_template, set_threads
from transforms.counters import count, timed


@dataclass
class EncodeShards(beam.PTransform):
    """Encode groups of embedding shards, each into one index shard and its part of the truth.

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
        return tasks | "SpreadTasks" >> beam.Reshuffle() | "EncodeShard" >> beam.ParDo(
            _EncodeFn(self.store, self.template, self.sha256, self.queries, self.threads)
        )  # fmt: skip


class _EncodeFn(beam.DoFn):
    def __init__(self, store: str, template: str, sha256: str, queries: str, threads: int) -> None:
        self._store, self._folder, self._sha256 = Path(store), template, sha256
        self._queries, self._threads = queries, threads
        self._shared = Shared()

    def setup(self) -> None:
        set_threads(self._threads)
        folder = self._store / self._folder

        def load() -> Template:
            return load_template(folder, self._sha256)

        self._template: Template = self._shared.acquire(load)

    def process(self, task: EncodeTask) -> Iterator[int]:
        queries = ExactNeighbours.from_bytes((self._store / self._queries).read_bytes())
        with timed("encode"):
            encode(task, self._store, self._template, queries)
        count("encode", "shards")
        yield task.number
