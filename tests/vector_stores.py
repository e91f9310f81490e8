"""Vectors and small published stores of them, for the tests of index and search."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lookalike.index import template as index
from lookalike.index.invlists import encode_shard
from lookalike.index.planning import plan
from lookalike.store import shards, snapshot
from lookalike.store.duplicates import write_duplicates
from lookalike.store.storage import write_bytes, write_file, write_json


def clustered(n, d, seed=0, rank=16, groups=30):
    """Low-rank groups with noise, as embeddings of photographs are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, rank))
    low = centres[rng.integers(0, groups, n)] + 0.5 * rng.standard_normal((n, rank))
    return (low @ rng.standard_normal((rank, d)) + 0.2 * rng.standard_normal((n, d))).astype("f4")


def make_store(store, vectors, metric="cosine", *, files=4, options=None, extra=None):
    """A published store through the real writers; returns ids and manifest."""
    if metric == "jaccard":
        vectors = np.abs(vectors)
    n, dim = vectors.shape
    lines, ids = [], []
    metadata = pa.schema([("label", pa.string())])
    schema = shards.schema(dim, metadata, {})
    for number, rows in enumerate(np.array_split(np.arange(n), files), start=5):
        relative = f"embeddings/{number:06d}.parquet"
        with shards.open_shard(store, relative, schema, number) as (writer, pending):
            for row in rows:
                fields = {
                    "uri": f"/pictures/{row}.png", "content_sha256": b"\0" * 32, "width": 4,
                    "height": 3, "format": "PNG", "bytes": 9, "label": f"group {row % 3}",
                }  # fmt: skip
                ids.append(writer.append(fields, vectors[row]))
        lines.append(shards.shard_record(pending.finished, number, len(rows)))
    spec = plan(n, dim, metric, options or {}, files=files)
    data, stats = index.train(spec, vectors)
    template = index.Template(data, spec)
    folder = f"templates/{template.sha256}"
    record = write_bytes(store, f"{folder}/{index.TEMPLATE_FILE}", data)
    lines.append({**record.to_json(), "kind": "template"})
    record = write_json(store, f"{folder}/{index.SPEC_FILE}", {**spec.to_json(), "stats": stats})
    lines.append({**record.to_json(), "kind": "template"})
    embeddings = [line["path"] for line in lines if line["kind"] == "embedding"]
    for number, group in enumerate(np.array_split(np.array(embeddings), spec.shards)):
        blocks = (block for path in group for block in shards.iter_blocks(store / path))
        with write_file(store, f"index/{number}.ivf") as pending:
            header = encode_shard(template, blocks, pending.write)
        lines.append({**pending.finished.to_json(), "kind": "index", "rows": header.rows})
    names = [{i: uris} for i, uris in zip(ids[1:4:2], (["/b", "/a"], ["/c"]), strict=False)]
    record, rows = write_duplicates(store, "snapshots/one/duplicates.parquet", names)
    lines.append({**record.to_json(), "kind": "duplicates", "rows": rows})
    manifest = {
        "name": "one", "features": [], "metric": metric, "dim": dim, "model_fingerprint": "m" * 64,
        "preprocessing_fingerprint": "p" * 64, "counts": {}, "files": lines,
        "index": {"spec": spec.to_json(), "template": template.sha256},
        "search": {"nprobe": 4, "rerank": 100}, "certificate": {"k": 10}, **(extra or {}),
    }  # fmt: skip
    snapshot.publish(store, manifest)
    return np.array(ids), vectors, manifest


def brute_force(queries, vectors, metric):
    """Scores (q, n) by the definitions."""
    q, v = queries.astype("f8")[:, None], vectors.astype("f8")[None]
    if metric == "l2":
        return np.sqrt(((q - v) ** 2).sum(2))
    if metric == "jaccard":
        return np.minimum(q, v).sum(2) / np.maximum(q, v).sum(2)
    products = (q * v).sum(2)
    if metric == "cosine":
        products /= np.linalg.norm(q, axis=2) * np.linalg.norm(v, axis=2)
    return products


def best(scores, k, metric):
    return np.argsort(scores if metric == "l2" else -scores, axis=1, kind="stable")[:, :k]


def trained(n=400, d=24, metric="cosine", **options):
    """(bytes of an IVF-PQ template, its spec, the vectors it was trained on)."""
    vectors = clustered(n, d)
    if metric == "jaccard":
        vectors = np.abs(vectors)
    spec = plan(n, d, metric, {"kind": "ivf_pq", **options})
    return index.train(spec, vectors[: spec.train_rows])[0], spec, vectors
