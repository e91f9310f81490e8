"""Costs: in proportion, and from rates that are measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lookalike.ivf.planner import plan
from lookalike.ivf.predicting import Rates, calibrate, predict

RATES = Rates(
    products=1e11, prepare_s=1e-6, encode_s=1e-5, codebooks_s=5, bytes_s=1e9, memory_bytes=1 << 34
)
MOST = {"memory": 1 << 50}


def predicted(n, dim=512, rates=RATES, options=MOST, **more):
    return predict(n, plan(n, dim, "cosine", options), rates, **more)


def test_ten_times_the_vectors_take_about_ten_times_as_long():
    one, ten = predicted(10**7), predicted(10**8)
    assert 10 <= ten.encode_s / one.encode_s < 14
    assert ten.truth_s == pytest.approx(10 * one.truth_s)
    assert ten.embeddings_bytes == 10 * one.embeddings_bytes
    assert 9 < ten.index_bytes / one.index_bytes < 10.1


def test_bytes_are_those_of_the_parts():
    found = predicted(10**6, component_bytes=2)
    assert found.embeddings_bytes == 10**6 * (2 * 512 + 160)
    assert 10**6 * 40 <= found.index_bytes <= 10**6 * 43
    assert found.searcher_bytes == found.index_bytes + found.trained_bytes
    assert found.training_bytes == pytest.approx(262_144 * 128 * 4, rel=0.05)


def test_an_exact_index_needs_no_training_and_compares_everything():
    found = predicted(5_000)
    assert (found.train_s, found.lists, found.codes, found.reranked) == (0, 1, 5_000, 0)
    assert found.index_bytes == 5_000 * (4 * 512 + 8)


def test_a_faster_machine_takes_less():
    slow = predicted(10**7)
    for name in ("products", "bytes_s"):
        fast = predicted(10**7, rates=replace(RATES, **{name: 10 * getattr(RATES, name)}))
        assert fast.encode_s < slow.encode_s
        assert fast.train_s < slow.train_s
    assert predicted(10**7, rates=replace(RATES, encode_s=0)).encode_s < slow.encode_s
    slow, cramped = predicted(10**6), replace(RATES, memory_bytes=0)
    assert predicted(10**6, rates=cramped).certify_s > 2 * slow.certify_s  # read from the disk


def test_a_higher_target_costs_queries_more():
    usual, high = (
        predicted(10**6, options={"target_recall": target}, target=target) for target in (0.9, 0.99)
    )
    assert high.lists > usual.lists
    assert high.codes > usual.codes
    assert high.reranked > usual.reranked
    assert high.certify_s > usual.certify_s


@pytest.mark.parametrize(
    ("dim", "metric", "options"),
    [
        (24, "cosine", {"kind": "exact"}),
        (24, "l2", {"kind": "ivf_sq"}),
        (96, "jaccard", {"kind": "ivf_pq", "code_bytes": 8}),
        (96, "inner_product", {"kind": "ivf_pq", "code_bytes": 8, "nbits": 8}),
    ],
)
def test_rates_are_measured_and_nothing_is_left(dim, metric, options, tmp_path):
    spec = plan(20_000, dim, metric, options)
    rates = calibrate(spec, tmp_path)
    assert not list(tmp_path.iterdir())
    assert 1e6 < rates.products < 1e15
    assert rates.bytes_s > 1e6
    assert (rates.codebooks_s > 0) == (rates.encode_s > 0) == (spec.kind != "exact")
    found = predict(20_000, spec, rates)
    assert 0 < found.encode_s < 600
    assert found.certify_s > 0
