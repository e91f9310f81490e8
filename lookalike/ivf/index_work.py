"""The work of an index: encoding embedding shards into parts, and grouping those by list."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from lookalike.errors import RequestError
from lookalike.exact_neighbours import ExactNeighbours
from lookalike.ivf.encoding import EncodeTask, encode
from lookalike.ivf.grouping import GroupTask, group
from lookalike.ivf.trained_index import SPEC_FILE, TrainedIndex, load_trained_index, set_threads
from lookalike.store.objects import Store
from lookalike.unit_log import logged
from lookalike.whole_numbers import whole_number
from lookalike.work import Counts, Share, Work

_LOG = logging.getLogger(__name__)


@dataclass
class _TrainedIndexWork(Work):
    """Work with a trained index, of which a process has one copy.

    Attributes:
        store: The store's root, reachable from every worker.
        trained: The trained index's name: the sha256 of its bytes, which are checked.
        threads: Faiss threads per worker process.
    """

    store: Store
    trained: str
    threads: int = 1

    def __post_init__(self) -> None:
        """Check that what every task needs is there."""
        if not self.store.has(f"templates/{self.trained}/{SPEC_FILE}"):
            raise RequestError(
                f"trained index: {self.store} has no templates/{self.trained}; write one with "
                "lookalike.ivf.trained_index.write_trained_index, and name it by what that returns"
            )
        self.threads = whole_number("threads", self.threads)

    def set_up(self, share: Share) -> None:
        """Load the trained index."""
        set_threads(self.threads)
        store, name = self.store, self.trained

        def load() -> TrainedIndex:
            return load_trained_index(store.local_folder(f"templates/{name}"), name)

        self._index: TrainedIndex = share(load)


@dataclass
class EncodeWork(_TrainedIndexWork):
    """Encodes groups of embedding shards, each into one part of the index and of the truth.

    Attributes:
        queries: The held-out queries (ExactNeighbours without neighbours), relative to the store;
            "" where no truth is wanted.
    """

    queries: str = ""
    stage = "encode"

    def __post_init__(self) -> None:
        """Check that what every task needs is there."""
        super().__post_init__()
        if self.queries and not self.store.has(self.queries):
            raise RequestError(f"queries: {self.store} has no {self.queries}")

    def do(self, task: EncodeTask) -> Counts:
        """Make a part."""
        with logged(_LOG, self.stage, task.number) as counts:
            made = encode(task, self.store, self._index, self._queries_of(task))
            counts.update(rows=made["shard"]["rows"] if "shard" in made else 0)
            counts["removed"] = made["removed"]
        return {"parts": 1}

    def _queries_of(self, task: EncodeTask) -> ExactNeighbours:
        path, spec = task.queries or self.queries, self._index.spec
        if not path:
            return ExactNeighbours(np.empty((0, spec.dim)), [], 1, spec.metric)
        return ExactNeighbours.from_bytes(self.store.read_bytes(path))


class GroupWork(_TrainedIndexWork):
    """Writes index shards, each one range of lists from all parts."""

    stage = "group"

    def do(self, task: GroupTask) -> Counts:
        """Make an index shard."""
        with logged(_LOG, self.stage, task.number) as counts:
            counts["rows"] = group(task, self.store, self._index)["shard"]["rows"]
        return {"shards": 1}
