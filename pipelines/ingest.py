"""`lookalike index --embeddings`: a run whose vectors were made elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lookalike.sources.repeated_uris import find_repeats
from lookalike.sources.vector_pieces import UNIT_ROWS, write_units
from lookalike.sources.vector_tables import VectorTable, find_dim, list_tables, metadata_schema
from lookalike.store import snapshot
from lookalike.store.runs import Plan
from lookalike.vector_faults import Rules
from pipelines import checks
from pipelines.config import Config
from pipelines.job import Job, Scanned, writing
from pipelines.progress import Progress
from transforms.ingest import IngestUnits


def run_ingest(
    config: Config, specs: Sequence[str], store_name: str, progress: Progress
) -> dict[str, Any]:
    """Bring a store up to date with tables of vectors, and publish.

    Returns:
        What `lookalike index --json` prints (see `pipelines.index.run_index`).

    Raises:
        RequestError: The request is wrong; the store is as it was.
        NotPublishedError: A limit stopped publication; the last snapshot stands.
        StoreBusyError: Another run holds the store.
    """
    store = checks.check_store(store_name, specs)
    notes: list[str] = []  # in a log, a wrong request is one line
    tables = list_tables(specs, progress.say if progress.live else notes.append)
    dim = find_dim(tables)
    parent = snapshot.read_manifest(store) if snapshot.current(store) else None
    checks.check_same_vectors(store, parent, ", ".join(specs), dim, config.metric)
    for note in notes:
        progress.say(note)
    rules = Rules(dim, config.metric, _stored_as(config.dtype, tables))
    with writing(store):
        return VectorJob(config, specs, store, parent, progress, tables, rules).run()


@dataclass
class VectorJob(Job):
    """A run over tables of vectors."""

    tables: Sequence[VectorTable]
    rules: Rules

    noun = wanted = "vectors"
    stage = "ingest"

    def fingerprints(self) -> tuple[str, str]:
        """That vectors were given, of how many components and for which metric."""
        text = f"vectors:{self.rules.dim}:{self.rules.metric}"
        found = hashlib.sha256(text.encode()).hexdigest()
        return found, found

    def request(self) -> dict[str, Any]:
        """What they are stored as."""
        return {"vectors": self.rules.dtype, "dim": self.rules.dim}

    def made_by(self) -> dict[str, Any]:
        """No features."""
        return {"features": [], "dim": self.rules.dim}

    def list_units(self) -> Scanned:
        """Find the repeated uris, and cut the tables into work units."""
        folder = self.scratch.folder
        rows, seen = sum(table.rows for table in self.tables), [0]

        def count(more: int) -> None:
            seen[0] += more

        with self.progress.stage("scan", "uris", rows, lambda: seen[0], 0):
            repeats = find_repeats(self.tables, self.store / folder / "listing", count)
        if len(repeats[0]):
            self.progress.say(f"scan: {len(repeats[0]):,} rows repeat the uri of an earlier row")
        unit_rows = self.config.unit_files or UNIT_ROWS
        units = write_units(self.store, f"{folder}/units", self.tables, repeats, unit_rows)
        metadata = metadata_schema(self.tables)
        return Scanned(rows, _digest(self.tables), units, metadata)

    def transform(self, plan: Plan) -> IngestUnits:
        """Units of rows into shards."""
        metadata = plan.metadata.serialize().to_pybytes()
        return IngestUnits(str(self.store), self.rules, metadata, self.properties)


def _stored_as(dtype: str, tables: Sequence[VectorTable]) -> str:
    """float16 where asked for, or where all are given so."""
    if dtype != "auto":
        return dtype
    return "float16" if all(pa.types.is_float16(table.kind) for table in tables) else "float32"


def _digest(tables: Sequence[VectorTable]) -> str:
    digest = hashlib.sha256()
    for table in tables:
        file = table.file
        digest.update(json.dumps([file.uri, file.bytes, file.version, table.groups]).encode())
    return digest.hexdigest()
