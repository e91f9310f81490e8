"""The project: `lookalike index --embeddings` as it is run, and a `Searcher` on its store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import lookalike
import lookalike.pipelines.ingest
from benchmarks.child import RefusedError
from benchmarks.command import lookalike as run
from benchmarks.processes import WayError
from lookalike.errors import RequestError
from lookalike.search.vector_index import VectorIndex
from lookalike.store import snapshot
from lookalike.store.objects import open_store

__all__ = ["VectorIndex", "build", "serve"]

_SETTINGS = 12


class Store:
    """A published snapshot, searched at settings of its certificate's sweep."""

    def __init__(self, store: Path) -> None:
        self._searcher = lookalike.open(store)
        manifest = self._searcher.manifest
        rerank = self._searcher.default_rerank(manifest["certificate"]["k"])
        default = {"nprobe": self._searcher.default_nprobe, "rerank": rerank}
        self.settings = _settings(manifest["certificate"].get("sweep", []), default)
        self._files = {
            int(line["file_no"]): store / line["path"]
            for line in snapshot.files_of(manifest, "embedding")
        }

    def search(self, setting: dict[str, Any], queries: Any, k: int) -> Any:
        """Ids (n, k)."""
        return self._searcher.search_vectors(queries, k, **setting)[0]

    def numbers(self, ids: Any) -> Any:
        """Row numbers of ids, by the uris that the rows were given."""
        found = np.full(ids.shape, -1, np.int64)
        for number, path in self._files.items():
            own = (ids >= 0) & (ids >> 32 == number)
            if own.any():
                uris = pq.read_table(path, columns=["uri"])["uri"].to_pylist()
                rows = np.array([int(uri.rpartition(":")[2]) for uri in uris], np.int64)
                found[own] = rows[ids[own] & 0xFFFFFFFF]
        return found


def _settings(sweep: Sequence[Mapping[str, Any]], default: dict[str, Any]) -> list[dict[str, Any]]:
    """The default, and what no cheaper setting of the sweep beats, evenly thinned."""
    best: list[dict[str, Any]] = []
    recall = -1.0
    for row in sorted(sweep, key=lambda row: (row["cost"], -row["recall"])):
        if row["recall"] > recall:
            recall = row["recall"]
            best.append({"nprobe": row["nprobe"], "rerank": row["rerank"]})
    kept = sorted({round(i) for i in np.linspace(0, len(best) - 1, _SETTINGS)} if best else ())
    return [default, *(best[i] for i in kept if best[i] != default)]


def build(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """Run the command; tells what each stage took."""
    config = out / "config.yaml"  # JSON is YAML
    config.write_text(
        json.dumps(
            {
                "index": task["index"],
                "publish": {"min_recall": 0},
                "runner": {"workers": task["workers"]},
            }
        )
    )
    store = out / "store"
    try:
        run("index", "--embeddings", task["parts"], "--store", str(store), "--config", str(config))
        manifest = snapshot.read_manifest(open_store(store))
    except (RequestError, WayError) as error:
        raise RefusedError(str(error)) from error
    spec = manifest["index"]
    certificate: Mapping[str, Any] = manifest["certificate"]
    searched = [
        line["bytes"]
        for kind in ("index", "template")
        for line in snapshot.files_of(manifest, kind)
    ]
    named = ("k", "recall", "low", "high", "nprobe", "rerank", "reached")
    return {
        "key": f"{spec['kind']}, {spec['nlist']} lists, {spec['code_bytes']} code bytes",
        "bytes": sum(searched),
        "stages": manifest.get("stages", {}),
        "certificate": {name: certificate[name] for name in named if name in certificate},
    }


def serve(task: dict[str, Any], out: Path) -> Store:
    """Open what was published."""
    return Store(out / "store")
