"""Encode embedding shards into parts, group those by list; what was trained comes as files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
from apache_beam.utils.shared import Shared

from lookalike.errors import RequestError
from lookalike.exact_neighbours import ExactNeighbours
from lookalike.ivf.encoding import EncodeTask, encode
from lookalike.ivf.grouping import GroupTask, group
from lookalike.ivf.trained_index import SPEC_FILE, TrainedIndex, load_trained_index, set_threads
from lookalike.store.objects import open_store
from lookalike.transforms.logs import LoggedFn, count, unit_of
from lookalike.transforms.tasks import TaskTransform
from lookalike.whole_numbers import whole_number

_LOG = logging.getLogger(__name__)


@beam.typehints.with_input_types(EncodeTask)
@beam.typehints.with_output_types(int)
@dataclass
class EncodeParts(TaskTransform):
    """Encode groups of embedding shards, each into one part of the index and of the truth.

    Yields the number of each finished task; of its attempts the first one's record counts.

    Attributes:
        store: The store's root, reachable from every worker.
        trained: The trained index's name: the sha256 of its bytes, which are checked.
        queries: The held-out queries (ExactNeighbours without neighbours), relative to the store;
            "" where no truth is wanted.
        threads: Faiss threads per worker process.
    """

    store: str
    trained: str
    queries: str = ""
    threads: int = 1

    def __post_init__(self) -> None:
        """Check that what every task needs is there."""
        super().__init__()
        self.store = _store_of(self.store, self.trained)
        self.threads = whole_number("threads", self.threads)
        if self.queries and not open_store(self.store).has(self.queries):
            raise RequestError(f"queries: {self.store} has no {self.queries}")

    def expand(self, tasks: beam.PCollection[EncodeTask]) -> beam.PCollection[int]:
        """PCollection[EncodeTask] -> PCollection[int]."""
        return tasks | "SpreadParts" >> beam.Reshuffle() | "EncodePart" >> beam.ParDo(self.fn())

    def fn(self) -> beam.DoFn:
        """See `TaskTransform`."""
        return _EncodeFn(self.store, self.trained, self.threads, self.queries)


@beam.typehints.with_input_types(GroupTask)
@beam.typehints.with_output_types(int)
@dataclass
class GroupLists(TaskTransform):
    """Write index shards, each one range of lists from all parts.

    Yields the number of each finished task; of its attempts the first one's record counts.

    Attributes:
        store: The store's root, reachable from every worker.
        trained: The trained index's name: the sha256 of its bytes, which are checked.
    """

    store: str
    trained: str

    def __post_init__(self) -> None:
        """Check that what every task needs is there."""
        super().__init__()
        self.store = _store_of(self.store, self.trained)

    def expand(self, tasks: beam.PCollection[GroupTask]) -> beam.PCollection[int]:
        """PCollection[GroupTask] -> PCollection[int]."""
        return tasks | "SpreadRanges" >> beam.Reshuffle() | "GroupLists" >> beam.ParDo(self.fn())

    def fn(self) -> beam.DoFn:
        """See `TaskTransform`."""
        return _GroupFn(self.store, self.trained)


def _store_of(store: str, trained: str) -> str:
    """The whole name of a store that has the trained index: a worker is elsewhere."""
    place = open_store(store)
    if not place.has(f"templates/{trained}/{SPEC_FILE}"):
        raise RequestError(
            f"trained index: {place} has no templates/{trained}; write one with "
            "lookalike.ivf.trained_index.write_trained_index, and name it by what that returns"
        )
    return place.name


class _TrainedIndexFn(LoggedFn):
    """A DoFn with the process's one copy of the trained index."""

    def __init__(self, store: str, trained: str, threads: int = 1) -> None:
        self._store, self._name, self._threads = open_store(store), trained, threads
        self._shared = Shared()

    def setup(self) -> None:
        set_threads(self._threads)
        store, name = self._store, self._name

        def load() -> TrainedIndex:
            return load_trained_index(store.local_folder(f"templates/{name}"), name)

        self._trained: TrainedIndex = self._shared.acquire(load)


class _EncodeFn(_TrainedIndexFn):
    def __init__(self, store: str, trained: str, threads: int, queries: str) -> None:
        super().__init__(store, trained, threads)
        self._queries = queries

    def process(self, task: EncodeTask) -> Iterator[int]:
        with unit_of(_LOG, "encode", task.number) as counts:
            made = encode(task, self._store, self._trained, self._queries_of(task))
            counts.update(rows=made["shard"]["rows"] if "shard" in made else 0)
            counts["removed"] = made["removed"]
        count("encode", "parts")
        yield task.number

    def _queries_of(self, task: EncodeTask) -> ExactNeighbours:
        path, spec = task.queries or self._queries, self._trained.spec
        if not path:
            return ExactNeighbours(np.empty((0, spec.dim)), [], 1, spec.metric)
        return ExactNeighbours.from_bytes(self._store.read_bytes(path))


class _GroupFn(_TrainedIndexFn):
    def process(self, task: GroupTask) -> Iterator[int]:
        with unit_of(_LOG, "group", task.number) as counts:
            counts["rows"] = group(task, self._store, self._trained)["shard"]["rows"]
        count("group", "shards")
        yield task.number
