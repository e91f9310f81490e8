"""What must hold of a store, whatever went wrong: it opens, verifies, answers, and is complete."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lookalike.search.searcher import Searcher
from lookalike.store import snapshot
from lookalike.store.objects import open_store


@dataclass(frozen=True)
class Contents:
    """What a published snapshot holds.

    Attributes:
        vectors: Of every living row: uri -> (content hash, vector).
        statuses: Of the ledger: uri -> (status, reason).
    """

    vectors: dict[str, tuple[bytes, np.ndarray]]
    statuses: dict[str, tuple[str, str]]

    def differs(self, other: Contents) -> str:
        """How from another, or ""."""
        if self.statuses != other.statuses:
            return f"ledger: {sorted(self.statuses.items() ^ other.statuses.items())[:4]}"
        if self.vectors.keys() != other.vectors.keys():
            return f"uris: {sorted(self.vectors.keys() ^ other.vectors.keys())[:4]}"
        for uri, (digest, vector) in self.vectors.items():
            other_digest, other_vector = other.vectors[uri]
            if digest != other_digest or not np.allclose(vector, other_vector, atol=1e-6):
                return f"content or vector of {uri}"
        return ""


def read_contents(store: Path) -> Contents:
    """Of the published snapshot, which must verify and find every row by its own vector."""
    manifest = snapshot.read_manifest(open_store(store))
    problems = [str(problem) for problem in snapshot.verify(open_store(store))]
    assert not problems, problems
    paths = {
        kind: [store / line["path"] for line in snapshot.files_of(manifest, kind)]
        for kind in ("embedding", "ledger", "tombstones")
    }
    deleted = {int(row) for path in paths["tombstones"] for row in np.load(path)}
    found: dict[str, tuple[bytes, np.ndarray]] = {}
    for path in paths["embedding"]:
        table = pq.read_table(path, columns=["id", "uri", "content_sha256", "embedding"])
        for row in table.to_pylist():
            if row["id"] not in deleted:
                assert row["uri"] not in found, f"{row['uri']} twice"
                vector = np.array(row["embedding"], np.float32)
                found[row["uri"]] = (row["content_sha256"], vector)
    statuses = {
        row["uri"]: (row["status"], row["reason"])
        for path in paths["ledger"]
        for row in pq.read_table(path, columns=["uri", "status", "reason"]).to_pylist()
    }
    contents = Contents(found, statuses)
    _ask(store, manifest, contents)
    return contents


def _ask(store: Path, manifest: dict[str, Any], contents: Contents) -> None:
    """Every vector is found first by itself (or by one that is equal)."""
    searcher = Searcher(open_store(store), manifest, check=True)
    rows = np.array([vector for _, vector in contents.vectors.values()])
    answers = searcher.search(vectors=rows, k=1, nprobe=searcher.spec.nlist, rerank=len(rows))
    for (uri, (_, vector)), [first, *_] in zip(contents.vectors.items(), answers, strict=True):
        equal = np.allclose(contents.vectors[first.uri][1], vector, atol=1e-6)
        assert first.uri == uri or equal, f"{uri} finds {first.uri}"


def unlisted(store: Path) -> list[str]:
    """Files that no manifest lists and that are no part of the store's own."""
    listed = {"CURRENT", "runs/lock"}
    for name in snapshot.names(open_store(store)):
        listed |= {
            line["path"] for line in snapshot.read_manifest(open_store(store), name)["files"]
        }
        listed.add(snapshot.manifest_path(name))
    there = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
    return sorted(there - listed)
