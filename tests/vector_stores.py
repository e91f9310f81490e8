"""Vectors and small published stores of them, for the tests of index and search."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from lookalike.exact_neighbours import ExactNeighbours
from lookalike.ivf import trained_index as index
from lookalike.ivf.encoding import EncodeTask, encode
from lookalike.ivf.grouping import GroupTask, group, list_ranges, list_sizes
from lookalike.ivf.planner import plan
from lookalike.ivf.train import train
from lookalike.recall import certificate
from lookalike.recall.asking import Here
from lookalike.store import shard_format, shards
from lookalike.store.duplicates import PAIRS, write_duplicates
from lookalike.store.durable import write_bytes, write_json
from lookalike.store.objects import open_store
from tests import publishing


def clustered(n, d, seed=0, rank=16, groups=30):
    """Low-rank groups with noise, as embeddings of photographs are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, rank))
    low = centres[rng.integers(0, groups, n)] + 0.5 * rng.standard_normal((n, rank))
    return (low @ rng.standard_normal((rank, d)) + 0.2 * rng.standard_normal((n, d))).astype("f4")


def pairs(names):
    """Names by id as `write_duplicates` takes them, of (id, names)."""
    rows = [(i, uri) for i, uris in names for uri in uris]
    columns = zip(*rows, strict=True) if rows else ([], [])
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, PAIRS, strict=True)],
        schema=PAIRS,
    )


def content(row):
    """The hash of a row's bytes."""
    return hashlib.sha256(str(row).encode()).digest()


def make_store(store, vectors, metric="cosine", *, files=4, options=None, extra=None):
    """A published store through the real writers; returns ids and manifest."""
    if metric == "jaccard":
        vectors = np.abs(vectors)
    n, dim = vectors.shape
    lines, ids = [], []
    metadata = pa.schema([("label", pa.string())])
    dtype = "float16" if vectors.dtype == np.float16 else "float32"
    schema = shard_format.schema(dim, metadata, {}, dtype)
    for number, rows in enumerate(np.array_split(np.arange(n), files), start=5):
        relative = f"embeddings/{number:06d}.parquet"
        with shards.open_shard(open_store(store), relative, schema, number) as (writer, pending):
            for row in rows:
                fields = {
                    "uri": f"/pictures/{row}.png",
                    "content_sha256": content(row),
                    "width": 4,
                    "height": 3,
                    "format": "PNG",
                    "bytes": 9,
                    "label": f"group {row % 3}",
                }
                ids.append(writer.append(fields, vectors[row]))
        lines.append(shards.shard_record(pending.finished, number, len(rows)))
    spec = plan(n, dim, metric, options or {})
    data, stats = train(spec, vectors)
    trained = index.TrainedIndex(data, spec)
    folder = f"templates/{trained.sha256}"
    record = write_bytes(store, f"{folder}/{index.TRAINED_FILE}", data)
    lines.append({**record.to_json(), "kind": "template"})
    record = write_json(store, f"{folder}/{index.SPEC_FILE}", {**spec.to_json(), "stats": stats})
    lines.append({**record.to_json(), "kind": "template"})
    embeddings = [line["path"] for line in lines if line["kind"] == "embedding"]
    lines += build_index(store, embeddings, trained)
    names = pairs(zip(ids[1:4:2], (["/b", "/a"], ["/c"]), strict=False))
    record, rows = write_duplicates(open_store(store), "snapshots/one/duplicates.parquet", names)
    lines.append({**record.to_json(), "kind": "duplicates", "rows": rows})
    manifest = {
        "name": "one",
        "features": [],
        "metric": metric,
        "dim": dim,
        "model_fingerprint": "m" * 64,
        "preprocessing_fingerprint": "p" * 64,
        "counts": {},
        "files": lines,
        "index": {"spec": spec.to_json(), "template": trained.sha256},
        "search": {"nprobe": 4, "rerank": 100},
        "certificate": {"k": 10},
        **(extra or {}),
    }
    publishing.publish(open_store(store), manifest)
    return np.array(ids), vectors, manifest


def build_index(store, embeddings, trained, *, parts=None, removed="", truth=None):
    """The manifest's lines of an index over embedding shards, by the steps of a run."""
    spec = trained.spec
    parts = parts or min(len(embeddings), 2 if spec.shards > 1 else 1)
    whole = parts == 1 and spec.shards == 1
    tasks = [
        EncodeTask(
            number,
            tuple(part.tolist()),
            f"index/{number}" if whole else f"runs/parts/{number}",
            f"runs/truth/{number}",
            f"runs/encoded/{number}.json",
            whole,
            removed,
        )
        for number, part in enumerate(np.array_split(np.array(embeddings), parts))
    ]
    done = []
    for task in tasks:
        queries = ExactNeighbours(np.empty((0, spec.dim)), [], 1, spec.metric)
        done.append(encode(task, open_store(store), trained, truth or queries)["shard"])
    if not whole:
        outputs = tuple(line["path"] for line in done)
        ranges = list_ranges(list_sizes(open_store(store), outputs, trained), spec.shards)
        tasks = [
            GroupTask(number, first, last, outputs, f"index/{number}", f"runs/shards/{number}.json")
            for number, (first, last) in enumerate(ranges)
        ]
        done = [group(task, open_store(store), trained)["shard"] for task in tasks]
    return done


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
    """(bytes of an IVF-PQ trained index, its spec, the vectors it was trained on)."""
    vectors = clustered(n, d)
    if metric == "jaccard":
        vectors = np.abs(vectors)
    spec = plan(n, d, metric, {"kind": "ivf_pq", **options})
    return train(spec, vectors[: spec.train_rows])[0], spec, vectors


def certify(searcher, truth, k=10, target=0.95, **how):
    """The certificate of recall@k of an open snapshot."""
    trial = Here(searcher.index, searcher.count, truth, k)
    return certificate.certify(trial, k, target, **how)
