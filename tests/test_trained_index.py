from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from lookalike.errors import RequestError
from lookalike.ivf import train as training
from lookalike.ivf import trained_index as index
from lookalike.ivf.drawing import Draw, Drawn, DrawTask, Span, draw
from lookalike.ivf.planner import plan
from lookalike.ivf.spec import IndexSpec
from lookalike.ivf.train import train
from lookalike.ivf.trained_index import TrainedIndex, trained_index_hash
from lookalike.store import shard_format, shards
from lookalike.store.objects import open_store
from tests.vector_stores import clustered, trained

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _one_thread():
    index.set_threads(1)


# --- training ---------------------------------------------------------------------------------


TRAIN = """
import sys
import numpy as np
from lookalike.ivf import trained_index as index
from lookalike.ivf.spec import IndexSpec
from lookalike.ivf.train import train
from tests.vector_stores import clustered
index.set_threads(int(sys.argv[1]))
for kind, nlist, metric, rank in [("ivf_pq", 4, "l2", 16), ("ivf_pq", 300, "cosine", 40),
                                  ("ivf_sq", 8, "inner_product", 16), ("ivf_pq", 4, "l2", 3)]:
    vectors = clustered(3000, 300, rank=rank)
    if rank == 3:  # directions in which no vector points
        vectors[:, 20:] = 0
    pq = kind == "ivf_pq"
    spec = IndexSpec(kind, 300, metric, nlist, 16 if pq else 300, 4 if pq else 8,
                     64 if pq else 300, 0, 3000)
    data, _ = train(spec, vectors)
    trained_index = index.TrainedIndex(data, spec)
    prepared = trained_index.prepare(vectors)
    lists = trained_index.assign(prepared)
    codes = trained_index.encode(prepared, lists)
    hashes = [index.trained_index_hash(one.tobytes()) for one in (prepared, lists, codes)]
    print(trained_index.sha256, *hashes)
"""


def test_equal_bytes_for_one_and_two_threads():
    """Of Faiss and of numpy; rotated vectors, lists and codes, too."""
    printed = set()
    for threads in ("1", "2"):
        blas = dict.fromkeys(
            ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads
        )
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, threads],
            cwd=ROOT,
            env={**os.environ, **blas},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed.add(done.stdout)
    assert len(printed) == 1
    assert len(printed.pop().split()) == 16


def test_the_seed_reaches_training():
    vectors = clustered(300, 16)
    spec = plan(300, 16, "cosine", {"kind": "ivf_pq", "seed": 1})
    other = plan(300, 16, "cosine", {"kind": "ivf_pq", "seed": 2})
    assert train(spec, vectors)[0] != train(other, vectors)[0]


def test_training_on_too_few_rows_is_refused():
    # Faiss's OPQ writes past a buffer on fewer rows than output components.
    spec = plan(1000, 300, "cosine", {"kind": "ivf_pq"})
    with pytest.raises(RequestError, match=f"at least {spec.rotation_dim} vectors, got 100"):
        train(spec, clustered(100, 300))


def test_statistics_of_training():
    vectors = clustered(2000, 32)
    spec = plan(2000, 32, "l2", {"kind": "ivf_pq", "code_bytes": 16})
    data, stats = train(spec, vectors)
    assert stats["rows"] == 2000
    assert 1 <= stats["imbalance"] < 3
    assert 0 < stats["quantisation_error"] < 0.1
    assert abs(stats["rotation_error"]) < 1e-5  # 32 components stay 32
    short = plan(2000, 32, "l2", {"kind": "ivf_pq", "code_bytes": 2})
    worse = train(short, vectors)[1]
    assert worse["quantisation_error"] > 2 * stats["quantisation_error"]
    trained_index = TrainedIndex(data, spec)
    prepared = trained_index.prepare(vectors)
    distances = trained_index.coarse(prepared, 1)[0]
    assert stats["objective"] == pytest.approx(distances.mean(), rel=1e-4)


def test_the_rotation_keeps_inner_products_of_low_rank_vectors():
    data, spec, vectors = trained(500, 200, "inner_product")
    trained_index = TrainedIndex(data, spec)
    prepared = trained_index.prepare(vectors)
    assert prepared.shape[1] < 200
    products = vectors @ vectors.T
    np.testing.assert_allclose(prepared @ prepared.T, products, atol=0.02 * np.abs(products).max())


# --- trained indexes ------------------------------------------------------------------------------


def test_a_trained_index_is_read_back_and_a_flipped_byte_is_refused(tmp_path):
    data, spec, vectors = trained()
    trained_index = TrainedIndex(data, spec)
    (tmp_path / index.TRAINED_FILE).write_bytes(data)
    (tmp_path / index.SPEC_FILE).write_text(json.dumps({**spec.to_json(), "stats": {}}))
    read = index.load_trained_index(tmp_path, trained_index.sha256)
    assert (read.sha256, read.spec) == (trained_index_hash(data), spec)
    np.testing.assert_array_equal(read.prepare(vectors), trained_index.prepare(vectors))
    # Faiss itself would load this without a word.
    flipped = bytearray(data)
    flipped[len(flipped) // 4] ^= 1  # in the rotation matrix
    (tmp_path / index.TRAINED_FILE).write_bytes(flipped)
    faiss.deserialize_index(np.frombuffer(bytes(flipped), np.uint8))
    message = f"sha256 {trained_index_hash(bytes(flipped))}, expected {trained_index.sha256}"
    with pytest.raises(RequestError, match=message):
        index.load_trained_index(tmp_path, trained_index.sha256)


def test_a_trained_index_of_another_spec_or_kind_is_refused():
    data, _, _ = trained()
    other = plan(400, 25, "cosine", {"kind": "ivf_pq"})
    with pytest.raises(RequestError, match="is not of its spec"):
        TrainedIndex(data, other)
    flat = faiss.serialize_index(faiss.IndexFlatL2(4)).tobytes()
    with pytest.raises(RequestError, match="not a lookalike trained index"):
        TrainedIndex(flat, other)
    exact = plan(400, 24, "cosine")
    with pytest.raises(RequestError, match="not a lookalike trained index of kind exact"):
        TrainedIndex(data, exact)


def test_the_rotation_is_learnt_from_all_of_the_sample_not_its_first_rows(monkeypatch):
    """The sample is sorted by id, and so by file: its start is no sample."""
    rng = np.random.default_rng(0)
    first, second = np.zeros((600, 32)), np.zeros((600, 32))
    first[:, :8], second[:, 8:16] = rng.normal(size=(600, 8)), rng.normal(size=(600, 8))
    rows = np.concatenate([first, second]).astype(np.float32)
    monkeypatch.setattr(training, "_ROTATION_ROWS", 600)
    spec = plan(1200, 32, "l2", {"kind": "ivf_pq", "nlist": 2, "code_bytes": 4})
    _, stats = train(spec, rows)
    assert spec.rotation_dim == 16
    assert stats["rotation_error"] < 0.01  # the first rows alone would lose all of the others


# --- codes and lists --------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2", "jaccard"])
@pytest.mark.parametrize(
    ("kind", "nbits", "code_bytes", "rotation_dim", "layout", "worst"),
    [
        ("exact", 0, 0, 24, "plain", 0),
        ("ivf_sq", 8, 24, 24, "plain", 2e-3),
        ("ivf_sq", 16, 48, 24, "plain", 1e-5),
        ("ivf_pq", 8, 12, 24, "plain", 0.05),
        ("ivf_pq", 4, 12, 24, "blocks32", 0.05),
    ],
)
def test_codes_stand_for_their_vectors(
    metric, kind, nbits, code_bytes, rotation_dim, layout, worst
):
    vectors = clustered(1500, 24)
    vectors *= np.geomspace(0.1, 10, 1500, dtype="f4")[:, None]  # of very different norms
    vectors = np.abs(vectors) if metric == "jaccard" else vectors
    nlist = 1 if kind == "exact" else 12
    spec = IndexSpec(kind, 24, metric, nlist, code_bytes, nbits, rotation_dim, 0, 1500)
    data, stats = train(spec, vectors)
    trained_index = TrainedIndex(data, spec)
    assert trained_index.code_size == (code_bytes or 96)
    assert trained_index.layout == layout
    prepared = trained_index.prepare(vectors)
    lists = trained_index.assign(prepared)
    squares = ((prepared[:, None].astype("f8") - trained_index.centroids[None]) ** 2).sum(axis=2)
    assert (lists == squares.argmin(axis=1)).mean() > 0.999  # whatever the metric
    codes = trained_index.encode(prepared, lists)
    assert codes.shape == (1500, trained_index.code_size)
    lost = ((trained_index.decode(codes, lists) - prepared) ** 2).sum(axis=1)
    share = lost / (prepared**2).sum(axis=1)
    assert np.median(share) <= worst
    if kind != "exact":
        assert share.mean() == pytest.approx(stats["quantisation_error"], rel=0.02, abs=1e-5)
        assert stats["objective"] == pytest.approx(squares.min(axis=1).mean(), rel=1e-3)
        counts = np.bincount(lists, minlength=12)
        assert stats["imbalance"] == pytest.approx(12 * (counts**2).sum() / 1500**2)
    one = trained_index.encode(prepared[7:8], lists[7:8])
    assert (one == codes[7:8]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_vectors_that_cannot_be_indexed_stop_training(bad):
    vectors = clustered(400, 24)
    vectors[300] = bad
    with pytest.raises(RequestError, match=r"not finite|is zero"):
        train(plan(400, 24, "cosine", {"kind": "ivf_pq"}), vectors)


def test_a_sample_read_in_blocks_trains_as_an_array_whatever_the_order_of_files(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "_BLOCK", 128)
    store, vectors, spans = open_store(tmp_path), clustered(900, 24), {}
    for number, part in zip((7, 3, 5), np.split(vectors, 3), strict=True):
        path = f"embeddings/{number}.parquet"
        schema = shard_format.schema(24, pa.schema([]), {})
        with shards.open_shard(store, path, schema, number) as (writer, _):
            for row in part:
                writer.append({"uri": "/a"}, row)
        spans[number] = Span(path, number, len(part))
    spec = plan(900, 24, "cosine", {"kind": "ivf_pq"})
    whole = np.concatenate([vectors[300:600], vectors[600:], vectors[:300]])  # by id
    expected = train(spec, whole)[0]
    every = Draw(spec.seed, 900)
    for order in ([7, 3, 5], [5, 7, 3]):
        name = f"drawn/{order[0]}"
        drawn = draw(
            DrawTask(0, tuple(spans[n] for n in order), 24, (every,), name, f"{name}.json"), store
        )
        assert train(spec, Drawn(store, [drawn], 0, every, 24))[0] == expected


class Watched:
    """A sample that remembers the most rows read at once."""

    def __init__(self, vectors):
        self.vectors, self.most = vectors, 0

    def __len__(self):
        return len(self.vectors)

    def __getitem__(self, rows):
        self.most = max(self.most, len(self.vectors[rows]))
        return self.vectors[rows]


def test_training_never_holds_the_sample_as_stored(monkeypatch):
    monkeypatch.setattr(training, "_BLOCK", 100)
    sample = Watched(clustered(1500, 64))
    train(plan(1500, 64, "cosine", {"kind": "ivf_pq"}), sample)
    assert sample.most == 100
