"""Write copied rows as embedding shards, in parallel."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa

from lookalike.reconcile.copying import CopyTask, copy_rows
from lookalike.store.objects import open_store
from lookalike.transforms.counters import count
from lookalike.transforms.logs import LoggedFn, unit_of

_LOG = logging.getLogger(__name__)


@beam.typehints.with_input_types(CopyTask)
@beam.typehints.with_output_types(int)
@dataclass
class CopyRows(beam.PTransform):
    """Write shards of rows that bear the vectors of other rows.

    Yields the number of each finished task; of its attempts the first one's record counts.

    Attributes:
        store: The store's root, reachable from every worker.
        shards: Embedding shards by file number, relative to the store.
        schema: Of the new shards.
    """

    store: str
    shards: Mapping[int, str]
    schema: pa.Schema

    def expand(self, tasks: beam.PCollection[CopyTask]) -> beam.PCollection[int]:
        """PCollection[CopyTask] -> PCollection[int]."""
        copy = _CopyFn(self.store, self.shards, self.schema)
        return tasks | "SpreadCopies" >> beam.Reshuffle() | "CopyRows" >> beam.ParDo(copy)


class _CopyFn(LoggedFn):
    def __init__(self, store: str, shards: Mapping[int, str], schema: pa.Schema) -> None:
        self._store, self._shards, self._schema = open_store(store), dict(shards), schema

    def process(self, task: CopyTask) -> Iterator[int]:
        with unit_of(_LOG, "copy", task.number) as counts:
            done = copy_rows(task, self._store, self._shards, self._schema)
            counts["rows"] = done["shard"]["rows"]
        count("copy", "copied-rows", done["shard"]["rows"])
        yield task.number
