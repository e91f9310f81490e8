from __future__ import annotations

import json

import faiss
import numpy as np
import pytest

from lookalike.errors import RequestError
from lookalike.index import template as index
from lookalike.index.planning import plan
from lookalike.index.template import Template, template_hash, train
from tests.vector_stores import clustered, trained


@pytest.fixture(autouse=True)
def _one_thread():
    index.set_threads(1)


# --- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_training_is_bit_equal_for_one_and_two_threads(metric):
    vectors = clustered(300, 600)
    spec = plan(300, 600, metric, {"kind": "ivf_pq", "code_bytes": 16, "nlist": 4})
    hashes = set()
    for threads in (1, 2, 1):
        index.set_threads(threads)
        hashes.add(template_hash(train(spec, vectors)[0]))
    assert len(hashes) == 1


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
    template = Template(data, spec)
    prepared = template.prepare(vectors)
    distances = template.coarse(prepared, 1)[0]
    assert stats["objective"] == pytest.approx(distances.mean(), rel=1e-4)


def test_the_rotation_keeps_inner_products_of_low_rank_vectors():
    data, spec, vectors = trained(500, 200, "inner_product")
    template = Template(data, spec)
    prepared = template.prepare(vectors)
    assert prepared.shape[1] < 200
    products = vectors @ vectors.T
    np.testing.assert_allclose(prepared @ prepared.T, products, atol=0.02 * np.abs(products).max())


# --- templates --------------------------------------------------------------------------------


def test_a_template_is_read_back_and_a_flipped_byte_is_refused(tmp_path):
    data, spec, vectors = trained()
    template = Template(data, spec)
    (tmp_path / index.TEMPLATE_FILE).write_bytes(data)
    (tmp_path / index.SPEC_FILE).write_text(json.dumps({**spec.to_json(), "stats": {}}))
    read = index.load_template(tmp_path, template.sha256)
    assert (read.sha256, read.spec) == (template_hash(data), spec)
    np.testing.assert_array_equal(read.prepare(vectors), template.prepare(vectors))
    # Faiss itself would load this without a word.
    flipped = bytearray(data)
    flipped[len(flipped) // 4] ^= 1  # in the rotation matrix
    (tmp_path / index.TEMPLATE_FILE).write_bytes(flipped)
    faiss.deserialize_index(np.frombuffer(bytes(flipped), np.uint8))
    message = f"sha256 {template_hash(bytes(flipped))}, expected {template.sha256}"
    with pytest.raises(RequestError, match=message):
        index.load_template(tmp_path, template.sha256)


def test_a_template_of_another_spec_or_kind_is_refused():
    data, _, _ = trained()
    other = plan(400, 25, "cosine", {"kind": "ivf_pq"})
    with pytest.raises(RequestError, match="is not of its spec"):
        Template(data, other)
    flat = faiss.serialize_index(faiss.IndexFlatL2(4)).tobytes()
    with pytest.raises(RequestError, match="not a lookalike template"):
        Template(flat, other)
    exact = plan(400, 24, "cosine")
    with pytest.raises(RequestError, match="not a lookalike template of kind exact"):
        Template(data, exact)


def test_the_rotation_is_learnt_from_all_of_the_sample_not_its_first_rows(monkeypatch):
    """The sample is sorted by id, and so by file: its start is no sample."""
    rng = np.random.default_rng(0)
    first, second = np.zeros((600, 32)), np.zeros((600, 32))
    first[:, :8], second[:, 8:16] = rng.normal(size=(600, 8)), rng.normal(size=(600, 8))
    rows = np.concatenate([first, second]).astype(np.float32)
    monkeypatch.setattr(index, "_ROTATION_ROWS", 600)
    spec = plan(1200, 32, "l2", {"kind": "ivf_pq", "nlist": 2, "code_bytes": 4})
    _, stats = train(spec, rows)
    assert spec.rotation_dim == 16
    assert stats["rotation_error"] < 0.01  # the first rows alone would lose all of the others
