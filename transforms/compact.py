"""Merge small embedding shards and those with dead rows, in parallel."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np

from lookalike.store.compacting import CompactTask, compact
from lookalike.store.objects import open_store
from lookalike.transforms.counters import count
from lookalike.transforms.logs import LoggedFn, unit_of

_LOG = logging.getLogger(__name__)


@beam.typehints.with_input_types(CompactTask)
@beam.typehints.with_output_types(int)
@dataclass
class CompactShards(beam.PTransform):
    """Write embedding shards anew without their dead rows, each out of several.

    Yields the number of each finished task; of its attempts the first one's record counts.

    Attributes:
        store: The store's root, reachable from every worker.
        dead: The tombstones' file (.npy, ascending), relative to the store.
    """

    store: str
    dead: str

    def expand(self, tasks: beam.PCollection[CompactTask]) -> beam.PCollection[int]:
        """PCollection[CompactTask] -> PCollection[int]."""
        return (
            tasks
            | "SpreadTasks" >> beam.Reshuffle()
            | "CompactShard" >> beam.ParDo(_CompactFn(self.store, self.dead))
        )


class _CompactFn(LoggedFn):
    def __init__(self, store: str, dead: str) -> None:
        self._store, self._path = open_store(store), dead

    def setup(self) -> None:
        self._dead = np.load(self._store.local(self._path), mmap_mode="r", allow_pickle=False)

    def process(self, task: CompactTask) -> Iterator[int]:
        with unit_of(_LOG, "compact", task.number) as counts:
            compact(task, self._store, self._dead)
            counts["rows"] = task.rows
        count("compact", "rows", task.rows)
        yield task.number
