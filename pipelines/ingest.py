"""`lookalike index --embeddings`: a run whose vectors were made elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.ingest_work import IngestWork
from lookalike.pipelines import checks, preflight, stores
from lookalike.pipelines.config import Config
from lookalike.pipelines.flow import run_job
from lookalike.pipelines.job import Again, Job
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.reconcile import Reconciling
from lookalike.sources.listing import Listing
from lookalike.sources.vector_listing import VectorListing
from lookalike.sources.vector_pieces import UNIT_ROWS, VectorCutting
from lookalike.sources.vector_tables import VectorTable, find_dim, list_tables, metadata_schema
from lookalike.store import snapshot
from lookalike.store.manifest import Manifest
from lookalike.store.runs import Plan
from lookalike.vector_faults import REASONS, Rules


def run_ingest(
    config: Config,
    specs: Sequence[str],
    store_name: str,
    progress: Progress,
    again: Again | None = None,
) -> dict[str, Any]:
    """Bring a store up to date with tables of vectors, and publish.

    Of tables that did not change only the uris are read, but for what `again` names.

    Returns:
        What `lookalike index --json` prints (see `lookalike.pipelines.index.run_index`).

    Raises:
        RequestError: The request is wrong; the store is as it was.
        NotPublishedError: A limit stopped publication; the last snapshot stands.
        StoreBusyError: Another run holds the store.
    """
    again = again or Again()
    checks.check_reasons(again.rejects, REASONS[1:])
    config = replace(config, runner=preflight.ready(config.runner))
    place = stores.to_write(store_name, specs)
    store = place.store
    notes: list[str] = []  # in a log, a wrong request is one line
    tables = list_tables(specs, progress.say if progress.live else notes.append)
    dim = find_dim(tables)
    parent = snapshot.read_manifest(store) if snapshot.current(store) else None
    checks.check_vectors(store, parent)
    preflight.check_places(config.runner, store, [table.file for table in tables[:1]])
    rules = Rules(dim, config.metric, _stored_as(config.dtype, tables))
    with place.writing():
        place.check_parent(parent)
        for note in [*notes, *checks.other_vectors(parent, dim, config.metric)]:
            progress.say(note)
        job = VectorJob(
            config, specs, store, parent, progress, tables, rules, again=again, commit=place.publish
        )
        return run_job(job)


@dataclass
class VectorJob(Job):
    """A run over tables of vectors."""

    tables: Sequence[VectorTable]
    rules: Rules

    noun = wanted = "vectors"
    stage = "ingest"
    by_content = False  # every uri stands for itself

    def fingerprints(self) -> tuple[str, str]:
        """That vectors were given, of how many components and for which metric."""
        text = f"vectors:{self.rules.dim}:{self.rules.metric}"
        found = hashlib.sha256(text.encode()).hexdigest()
        return found, found

    def request(self) -> dict[str, Any]:
        """What they are stored as."""
        return {"vectors": self.rules.dtype, "dim": self.rules.dim}

    def made_by(self) -> Manifest:
        """No features."""
        return {"features": [], "dim": self.rules.dim}

    def stored_as(self) -> str:
        """The type of the components of stored vectors."""
        return self.rules.dtype

    def list_rows(self, folder: str) -> tuple[Listing, pa.Schema]:
        """List the rows of all tables, each under its uri."""
        size = self.rules.dim * np.dtype(self.rules.dtype).itemsize
        plan = VectorListing.of(self.tables, folder, size)
        steps = Reconciling(self.task_runner)
        listing, repeats = steps.list_vectors(plan)
        if repeats:
            self.progress.say(f"scan: {repeats:,} rows repeat the uri of an earlier row")
        return listing, metadata_schema(self.tables)

    def cut(self, candidates: Listing) -> tuple[int, ...]:
        """Units of runs of row groups."""
        folder, unit_rows = f"{self.scratch.folder}/units", self.config.unit_files or UNIT_ROWS
        plan = VectorCutting.of(candidates, folder, self.tables, unit_rows)
        steps = Reconciling(self.task_runner)
        return steps.cut_vectors(plan, candidates.rows).firsts

    def work(self, plan: Plan) -> IngestWork:
        """Units of rows into shards."""
        forgotten = tuple(line["path"] for line in self.forgotten())
        units = self.scratch.names(plan)
        return IngestWork(self.store, units, self.rules, plan.metadata, self.properties, forgotten)


def _stored_as(dtype: str, tables: Sequence[VectorTable]) -> str:
    """float16 where asked for, or where all are given so."""
    if dtype != "auto":
        return dtype
    return "float16" if all(pa.types.is_float16(table.kind) for table in tables) else "float32"
