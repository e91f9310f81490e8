"""What must hold of a store, whatever went wrong: it opens, verifies, answers, and is complete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lookalike.search.searcher import Searcher
from lookalike.store import snapshot
from lookalike.store.locks import CLOCK, LOCK
from lookalike.store.objects import Store


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


def read_contents(store: Store) -> Contents:
    """Of the published snapshot, which must verify and find every row by its own vector."""
    manifest = snapshot.read_manifest(store)
    problems = [str(problem) for problem in snapshot.verify(store)]
    assert not problems, problems
    files = {
        kind: [store.once(line["path"]) for line in snapshot.files_of(manifest, kind)]
        for kind in ("embedding", "ledger", "tombstones")
    }
    deleted = {int(row) for file in files["tombstones"] for row in np.load(file)}
    found: dict[str, tuple[bytes, np.ndarray]] = {}
    for file in files["embedding"]:
        table = pq.read_table(file, columns=["id", "uri", "content_sha256", "embedding"])
        for row in table.to_pylist():
            if row["id"] not in deleted:
                assert row["uri"] not in found, f"{row['uri']} twice"
                vector = np.array(row["embedding"], np.float32)
                found[row["uri"]] = (row["content_sha256"], vector)
    statuses = {
        row["uri"]: (row["status"], row["reason"])
        for file in files["ledger"]
        for row in pq.read_table(file, columns=["uri", "status", "reason"]).to_pylist()
    }
    contents = Contents(found, statuses)
    _ask(store, manifest, contents)
    return contents


def _ask(store: Store, manifest: dict[str, Any], contents: Contents) -> None:
    """Every vector is found first by itself (or by one that is equal)."""
    searcher = Searcher(store, manifest, check=True)
    rows = np.array([vector for _, vector in contents.vectors.values()])
    answers = searcher.search(vectors=rows, k=1, nprobe=searcher.spec.nlist, rerank=len(rows))
    for (uri, (_, vector)), [first, *_] in zip(contents.vectors.items(), answers, strict=True):
        equal = np.allclose(contents.vectors[first.uri][1], vector, atol=1e-6)
        assert first.uri == uri or equal, f"{uri} finds {first.uri}"


def unlisted(store: Store, there: Iterable[str]) -> list[str]:
    """Which of the paths no manifest lists, though they are not the store's own either."""
    listed = {"CURRENT", LOCK, CLOCK}
    for name in snapshot.names(store):
        listed |= {line["path"] for line in snapshot.read_manifest(store, name)["files"]}
        listed.add(snapshot.manifest_path(name))
    return sorted(set(there) - listed)
