"""Write embedding shards anew with vectors computed from the stored ones, in parallel."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import apache_beam as beam

from lookalike.models.conversion import Conversion
from lookalike.store.converting import ConvertTask, convert_shard
from lookalike.store.objects import open_store
from lookalike.transforms.counters import count
from lookalike.transforms.logs import LoggedFn, unit_of

_LOG = logging.getLogger(__name__)


@beam.typehints.with_input_types(ConvertTask)
@beam.typehints.with_output_types(int)
@dataclass
class ConvertShards(beam.PTransform):
    """Write embedding shards with other vectors of the same rows.

    Yields the number of each finished task; of its attempts the first one's record counts.

    Attributes:
        store: The store's root, reachable from every worker.
        conversion: How the new vectors follow from the old.
        properties: Key-value metadata of every shard.
    """

    store: str
    conversion: Conversion
    properties: Mapping[str, str]

    def expand(self, tasks: beam.PCollection[ConvertTask]) -> beam.PCollection[int]:
        """PCollection[ConvertTask] -> PCollection[int]."""
        convert = _ConvertFn(self.store, self.conversion, dict(self.properties))
        return tasks | "SpreadShards" >> beam.Reshuffle() | "ConvertShard" >> beam.ParDo(convert)


class _ConvertFn(LoggedFn):
    def __init__(self, store: str, conversion: Conversion, properties: dict[str, str]) -> None:
        self._store, self._conversion, self._properties = open_store(store), conversion, properties

    def setup(self) -> None:
        self._convert = self._conversion.load(self._store)

    def process(self, task: ConvertTask) -> Iterator[int]:
        with unit_of(_LOG, "convert", task.number) as counts:
            convert_shard(task, self._store, self._convert, self._conversion.dim, self._properties)
            counts["rows"] = task.rows
        count("convert", "rows", task.rows)
        yield task.number
