"""Write copied rows as embedding shards, in parallel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa

from lookalike.changes.copying import CopyTask, copy_rows
from lookalike.store.objects import open_store
from transforms.counters import count, timed


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


class _CopyFn(beam.DoFn):
    def __init__(self, store: str, shards: Mapping[int, str], schema: pa.Schema) -> None:
        self._store, self._shards, self._schema = open_store(store), dict(shards), schema

    def process(self, task: CopyTask) -> Iterator[int]:
        with timed("copy"):
            done = copy_rows(task, self._store, self._shards, self._schema)
        count("copy", "copied-rows", done["shard"]["rows"])
        yield task.number
