"""Bring vectors made elsewhere into the store, in parallel: whole work units into shards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa

from lookalike.sources.units import Units
from lookalike.store.forgotten import Forgotten
from lookalike.store.ledger import LISTED
from lookalike.store.objects import open_store
from lookalike.store.runs import UnitNames
from lookalike.transforms.logs import LoggedFn, count, unit_of
from lookalike.transforms.tasks import TaskTransform
from lookalike.vector_faults import Rules
from lookalike.vector_units import ingest_unit

_LOG = logging.getLogger(__name__)


@beam.typehints.with_input_types(int)
@beam.typehints.with_output_types(int)
@dataclass
class IngestUnits(TaskTransform):
    """Ingest work units by number: each into a Parquet shard, a ledger part and, last, its record.

    Of a unit's attempts the first one's record counts, and a unit that has one is finished. Yields
    the number of each finished unit.

    Attributes:
        store: The store's root, reachable from every worker.
        units: Where everything of the units lies.
        rules: What the vectors must be.
        metadata: The metadata columns.
        properties: Key-value metadata of every shard.
        forgotten: Files below `store` that list vectors which must not come back.
    """

    store: str
    units: UnitNames
    rules: Rules
    metadata: pa.Schema
    properties: dict[str, str]
    forgotten: tuple[str, ...] = ()

    def expand(self, numbers: beam.PCollection[int]) -> beam.PCollection[int]:
        """PCollection[int] -> PCollection[int]."""
        return numbers | "SpreadUnits" >> beam.Reshuffle() | "IngestUnit" >> beam.ParDo(self.fn())

    def fn(self) -> beam.DoFn:
        """See `TaskTransform`."""
        return _IngestFn(
            self.store, self.units, self.rules, self.metadata, self.properties, self.forgotten
        )


class _IngestFn(LoggedFn):
    def __init__(
        self,
        store: str,
        units: UnitNames,
        rules: Rules,
        metadata: pa.Schema,
        properties: dict[str, str],
        forgotten: tuple[str, ...],
    ) -> None:
        self._store, self._names, self._rules = open_store(store), units, rules
        self._units = Units(units.cut_in, units.cut)
        self._metadata, self._properties = metadata, properties
        self._paths = forgotten

    def setup(self) -> None:
        self._forgotten = Forgotten.load(self._store.local(path) for path in self._paths)

    def process(self, number: int) -> Iterator[int]:
        with unit_of(_LOG, "ingest", number) as counts:
            done = ingest_unit(
                self._names.unit(number),
                self._store,
                self._units,
                self._rules,
                self._metadata,
                self._properties,
                self._forgotten,
            )
            counts.update((name, done["counts"][name]) for name in LISTED)
        for status in ("embedded", "unchanged", "rejected"):
            count("ingest", f"{status}-vectors", done["counts"][status])
        yield number
