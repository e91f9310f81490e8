"""The work of ingesting: whole units of vectors made elsewhere into shards."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pyarrow as pa

from lookalike.sources.units import Units
from lookalike.store.forgotten import Forgotten
from lookalike.store.ledger import LISTED
from lookalike.store.objects import Store
from lookalike.store.runs import UnitNames
from lookalike.unit_log import logged
from lookalike.vector_faults import Rules
from lookalike.vector_units import ingest_unit
from lookalike.work import Counts, Share, Work, alone

_LOG = logging.getLogger(__name__)


@dataclass
class IngestWork(Work):
    """Ingests work units by number: each into a Parquet shard, a ledger part and its record.

    Attributes:
        store: The store's root, reachable from every worker.
        units: Where everything of the units lies.
        rules: What the vectors must be.
        metadata: The metadata columns.
        properties: Key-value metadata of every shard.
        forgotten: Files below `store` that list vectors which must not come back.
    """

    store: Store
    units: UnitNames
    rules: Rules
    metadata: pa.Schema
    properties: dict[str, str]
    forgotten: tuple[str, ...] = ()
    stage = "ingest"

    def set_up(self, share: Share = alone) -> None:
        """Read what must not come back."""
        self._forgotten = Forgotten.load(self.store.local(path) for path in self.forgotten)
        self._units = Units(self.units.cut_in, self.units.cut)

    def do(self, number: int) -> Counts:
        """Ingest a unit, unless it is finished."""
        with logged(_LOG, self.stage, number) as counts:
            done = ingest_unit(
                self.units.unit(number),
                self.store,
                self._units,
                self.rules,
                self.metadata,
                self.properties,
                self._forgotten,
            )
            counts.update((name, done["counts"][name]) for name in LISTED)
        return {f"{status}-vectors": counts[status] for status in LISTED}
