from __future__ import annotations

import numpy as np
import pytest

from lookalike.index import template as index
from lookalike.index.certificate import certify, choose
from lookalike.index.metrics import METRICS
from lookalike.index.recall import ExactNeighbours, recall_at_k
from lookalike.index.sampling import sample_key
from lookalike.search import Searcher
from lookalike.store import shards, snapshot
from tests.vector_stores import best, brute_force, clustered, make_store


@pytest.fixture(autouse=True)
def _one_thread():
    index.set_threads(1)


def test_choose_takes_the_cheapest_that_reaches_else_the_best():
    sweep = [
        {"low": 0.90, "cost": 1}, {"low": 0.96, "cost": 5}, {"low": 0.97, "cost": 3},
    ]  # fmt: skip
    assert choose(sweep, 0.95)["cost"] == 3
    assert choose(sweep, 0.5)["cost"] == 1
    assert choose(sweep, 0.99)["low"] == 0.97
    with pytest.raises(ValueError, match="nothing was measured"):
        choose([], 0.9)


def certified(store, vectors, metric, options, k=10, depth=100, count=300, target=0.95):
    ids, vectors, manifest = make_store(store, vectors, metric, options=options)
    chosen = np.argsort(sample_key(1, ids))[:count]
    truth = ExactNeighbours(vectors[chosen], ids[chosen], depth, metric)
    for line in snapshot.files_of(manifest, "embedding"):
        for block_ids, block in shards.iter_blocks(store / line["path"]):
            truth.update(block_ids, block)
    searcher = Searcher(store, manifest)
    return searcher, ids, vectors, chosen, certify(searcher, truth, k, target)


@pytest.mark.parametrize("metric", METRICS)
def test_ivf_pq_reaches_its_target_after_re_ranking(metric, tmp_path):
    """About as many vectors, and as long, as a demonstration has; four shards."""
    options = {"kind": "ivf_pq", "shards": 4, "code_bytes": 32}
    searcher, ids, vectors, chosen, found = certified(
        tmp_path, clustered(1580, 256, rank=40, groups=60), metric, options
    )
    assert found["reached"]
    assert found["low"] >= 0.95
    # Again from outside: the chosen setting, brute force by the definitions.
    queries = vectors[chosen[:40]]
    expected = brute_force(queries, vectors, metric)
    expected[np.arange(40), chosen[:40]] = np.inf if metric == "l2" else -np.inf
    order = best(expected, 10, metric)
    got, scores = searcher.search_vectors(
        queries, 10, nprobe=found["nprobe"], rerank=found["rerank"], exclude=ids[chosen[:40], None]
    )
    true_scores = np.take_along_axis(expected, order, 1)
    recall = recall_at_k(got, scores, ids[order], true_scores, 10, metric).mean()
    assert recall >= 0.93  # of 40 queries
    share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(got, ids[order], strict=True)])
    assert share == pytest.approx(recall, abs=0.005)


def test_the_sweep_improves_with_effort_and_the_choice_is_repeatable(tmp_path):
    options = {"kind": "ivf_pq", "code_bytes": 4, "nlist": 16}
    vectors = clustered(800, 64, rank=30)
    *_, first = certified(tmp_path / "a", vectors, "cosine", options)
    *_, second = certified(tmp_path / "b", vectors, "cosine", options)
    sweep = {(row["nprobe"], row["rerank"]): row for row in first["sweep"]}
    for (nprobe, rerank), row in sweep.items():
        assert row["low"] <= row["recall"] <= row["high"]
        deeper = sweep.get((nprobe, 2 * rerank), row)
        assert deeper["recall"] >= row["recall"]
    assert sweep[1, 10]["recall"] < 0.8 < 0.95 <= first["low"]
    # It stopped one step after the target was reached.
    enough = min(nprobe for (nprobe, _), row in sweep.items() if row["low"] >= 0.95)
    assert max(nprobe for nprobe, _ in sweep) == min(2 * enough, 16)
    timed = ("ms",)
    strip = [[{k: v for k, v in row.items() if k not in timed} for row in run["sweep"]]
             for run in (first, second)]  # fmt: skip
    assert strip[0] == strip[1]
    assert {**first, "sweep": 0} == {**second, "sweep": 0}
    assert {"recall@1", "recall@10", "recall@100"} <= set(sweep[1, 100])
    assert "recall@100" not in sweep[1, 50]


def test_an_exact_index_is_certified_too(tmp_path):
    *_, found = certified(tmp_path, clustered(120, 16), "jaccard", {}, depth=10, count=120)
    assert (found["recall"], found["low"], found["high"]) == (1, 1, 1)  # every vector was asked
    assert len(found["sweep"]) == 1


def test_an_out_of_reach_target_is_reported_not_hidden(tmp_path):
    options = {"kind": "ivf_pq", "code_bytes": 1, "nlist": 2}
    *_, found = certified(
        tmp_path, clustered(3000, 64, rank=60), "cosine", options, count=60, target=0.99999
    )
    assert not found["reached"]
    assert found["low"] == max(row["low"] for row in found["sweep"])


def test_a_store_of_one_has_no_neighbours_and_full_recall(tmp_path):
    *_, found = certified(tmp_path, clustered(1, 8), "cosine", {}, count=1)
    assert found["recall"] == 1
