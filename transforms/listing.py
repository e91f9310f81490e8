"""List sources, in parallel: each task lists places, and leaves others."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa

from lookalike.sources.listing import ListTask, list_places
from lookalike.sources.source import Source
from lookalike.store.objects import open_store
from lookalike.transforms.logs import LoggedFn, count, unit_of
from lookalike.transforms.tasks import TaskTransform

_LOG = logging.getLogger(__name__)


@beam.typehints.with_input_types(ListTask)
@beam.typehints.with_output_types(int)
@dataclass
class ListPlaces(TaskTransform):
    """List places of sources into files of scratch.

    Yields the number of each finished task; of its attempts the first one's record counts.

    Attributes:
        store: The store's root, reachable from every worker, as are the sources.
        sources: All of them, by the numbers that places have.
        metadata: The metadata columns of the rows.
    """

    store: str
    sources: Sequence[Source]
    metadata: pa.Schema

    def expand(self, tasks: beam.PCollection[ListTask]) -> beam.PCollection[int]:
        """PCollection[ListTask] -> PCollection[int]."""
        return tasks | "SpreadPlaces" >> beam.Reshuffle() | "ListPlace" >> beam.ParDo(self.fn())

    def fn(self) -> beam.DoFn:
        """See `TaskTransform`."""
        return _ListFn(self.store, self.sources, self.metadata)


class _ListFn(LoggedFn):
    def __init__(self, store: str, sources: Sequence[Source], metadata: pa.Schema) -> None:
        self._store, self._sources, self._metadata = open_store(store), sources, metadata

    def process(self, task: ListTask) -> Iterator[int]:
        with unit_of(_LOG, "list", task.number) as counts:
            found = list_places(task, self._store, self._sources, self._metadata)
            pieces = found.get("pieces", ())
            counts["files"] = sum(one["part"]["rows"] for one in pieces if "part" in one)
            counts["places"] = sum("place" in one for one in pieces)
        count("list", "files", counts["files"])
        yield task.number
