from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.index.metrics import METRICS
from lookalike.index.planning import IndexSpec, plan


def test_small_stores_are_exact_and_say_why():
    spec = plan(9_999, 100, "cosine")
    assert (spec.kind, spec.nlist, spec.code_bytes, spec.train_rows) == ("exact", 1, 0, 0)
    assert "9,999 vectors are under 10,000" in spec.reason


def test_plan_at_one_million():
    spec = plan(1_000_000, 1000, "cosine", files=50)
    assert (spec.kind, spec.nlist, spec.code_bytes, spec.nbits) == ("ivf_pq", 4096, 64, 8)
    assert spec.rotation_dim == 256
    assert spec.shards == 1
    assert plan(10_000_000, 1000, "cosine", files=50).shards == 10


@settings(max_examples=300)
@given(
    st.integers(64, 10**8), st.integers(1, 4000), st.sampled_from(METRICS),
    st.integers(1, 1000),
)  # fmt: skip
def test_every_plan_is_sound(n, dim, metric, files):
    spec = plan(n, dim, metric, {"kind": "ivf_pq", "memory": 24 * n}, files=files)
    assert 1 <= spec.nlist <= max(1, n // 39)
    assert spec.nlist & (spec.nlist - 1) == 0
    assert spec.rotation_dim % spec.code_bytes == 0
    assert 1 <= spec.code_bytes <= spec.rotation_dim <= min(dim, spec.train_rows)
    assert spec.code_bytes <= 16
    assert min(n - n // 5, 39 * spec.nlist) <= spec.train_rows <= n - n // 5
    assert max(spec.nlist, 2**spec.nbits, spec.rotation_dim) <= spec.train_rows
    assert 4 <= spec.nbits <= 8
    assert 1 <= spec.shards <= files
    assert IndexSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_explicit_options_win():
    options = {"kind": "ivf_pq", "nlist": 7, "code_bytes": 5, "shards": 4, "seed": 3}
    spec = plan(1580, 100, "l2", options)
    assert (spec.nlist, spec.code_bytes, spec.shards, spec.seed) == (7, 5, 4, 3)
    assert spec.rotation_dim == 20


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (63, {"kind": "ivf_pq"}, "at least 64 vectors to train on, there are 63"),
        (1000, {"kind": "ivf_pq", "nlist": 801}, "nlist is 801, more than the 800 vectors to tr"),
        (1000, {"kind": "ivf_pq", "code_bytes": 31}, "code_bytes is 31, at most 30 fit 30-dim"),
        (1000, {"nlist": 5}, "index.nlist is 5, but the index for 1,000 vectors is exact"),
        (1000, {"kind": "hnsw"}, "kind must be auto, exact or ivf_pq, got 'hnsw'"),
        (10**9, {"memory": 10**9}, "index.memory is 1,000,000,000 bytes, but the ids"),
        (1000, {"shards": 0}, "index.shards must be a whole number from 1, got 0"),
    ],
)
def test_impossible_options_are_refused_with_both_values(n, options, message):
    with pytest.raises(RequestError, match=message):
        plan(n, 30, "cosine", options)


def test_unknown_metric_is_refused():
    with pytest.raises(RequestError, match="got 'hamming'"):
        plan(10, 3, "hamming")
