from __future__ import annotations

import numpy as np
import pytest

from lookalike.distances import METRICS
from lookalike.exact_neighbours import ExactNeighbours, interval, recall_at_k
from lookalike.recall.certificate import DEPTHS
from lookalike.recall.sweep import LIST_COST, NEGLIGIBLE, VECTOR_COST
from lookalike.sampling import sample_key
from lookalike.search.searcher import Searcher
from lookalike.store import shards, snapshot
from lookalike.store.objects import open_store
from tests.vector_stores import best, brute_force, certify, clustered, make_store


def opened(store, vectors, metric="cosine", options=None, depth=100, count=300):
    """(searcher, ids, vectors, rows that are queries, truth) of a new store."""
    ids, vectors, manifest = make_store(store, vectors, metric, options=options or {})
    chosen = np.argsort(sample_key(1, ids))[:count]
    truth = ExactNeighbours(vectors[chosen], ids[chosen], depth, metric)
    for line in snapshot.files_of(manifest, "embedding"):
        for block_ids, block in shards.iter_blocks(store / line["path"]):
            truth.update(block_ids, block)
    return Searcher(open_store(store), manifest), ids, vectors, chosen, truth


def certified(store, vectors, metric="cosine", options=None, target=0.95, **how):
    searcher, *_, truth = opened(store, vectors, metric, options, **how)
    return certify(searcher, truth, target=target)


def untimed(found):
    rows = [{key: value for key, value in row.items() if key != "ms"} for row in found["sweep"]]
    return {**found, "sweep": rows}


def assert_sound(found):
    """What holds of every certificate."""
    assert found["low"] <= found["recall"] <= found["high"]
    assert found["reached"] == (found["low"] >= found["target"])
    losses = found["losses"]
    assert min(losses.values()) >= 0
    assert sum(losses.values()) == pytest.approx(1 - found["recall"], abs=1e-9)
    for level in found["levels"]:
        for recall, low, high in (level["before"], level["after"]):
            assert 0 <= low <= recall <= high <= 1
        assert level["before"][0] <= level["after"][0]
        if level["k"] == found["k"]:
            assert level["after"] == [found[name] for name in ("recall", "low", "high")]
            assert level["rerank"] == found["rerank"]
    assert found["reached"] == (found["advice"] == "")
    for row in found["sweep"]:
        lost = row["coarse_miss"] + row["code_error"]
        assert lost == pytest.approx(1 - row["recall"], abs=1e-9)
        for recall, low, high in (*row["before"].values(), *row["after"].values()):
            assert 0 <= low <= recall <= high <= 1


@pytest.mark.parametrize("metric", METRICS)
def test_ivf_pq_reaches_its_target_after_re_ranking(metric, tmp_path):
    """About as many vectors, and as long, as a demonstration has; four shards."""
    options = {"kind": "ivf_pq", "shards": 4, "code_bytes": 32}
    searcher, ids, vectors, chosen, truth = opened(
        tmp_path, clustered(1580, 256, rank=40, groups=60), metric, options
    )
    found = certify(searcher, truth)
    assert_sound(found)
    assert found["reached"]
    # Again from outside: the chosen setting, brute force by the definitions.
    expected = brute_force(vectors[chosen], vectors, metric)
    expected[np.arange(len(chosen)), chosen] = np.inf if metric == "l2" else -np.inf
    order = best(expected, 10, metric)
    got, _ = searcher.search_vectors(
        vectors[chosen],
        10,
        nprobe=found["nprobe"],
        rerank=found["rerank"],
        exclude=ids[chosen, None],
    )
    share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(got, ids[order], strict=True)])
    # Where the query was not among its own candidates, a search has one more.
    assert found["recall"] - 1e-6 <= share <= found["recall"] + 0.01


def counter(searcher, truth):
    """Counts by plain loops: (nprobe, level, depth) -> recall@level of the first candidates."""
    kept = {}

    def others(nprobe):
        if nprobe not in kept:
            deepest = min(10 * DEPTHS[-1] + 1, searcher.count)
            candidates, _ = searcher.index.candidates(truth.queries, nprobe, deepest)
            kept[nprobe] = [
                [one for one in found if one not in (own, -1)]
                for own, found in zip(truth.query_ids.tolist(), candidates.tolist(), strict=True)
            ]
        return kept[nprobe]

    def counted(nprobe, level, depth):
        shares = []
        for found, known in zip(others(nprobe), truth.ids[:, :level].tolist(), strict=True):
            right = {one for one in known if one >= 0}
            shares.append(len(right.intersection(found[:depth])) / len(right))
        return np.mean(shares)

    return counted


def test_every_number_of_the_sweep_is_what_counting_gives(tmp_path):
    """Without ties, so that counting ids is enough."""
    options = {"kind": "ivf_pq", "code_bytes": 4, "nlist": 16, "shards": 3}
    searcher, *_, truth = opened(
        tmp_path, clustered(900, 48, rank=30), options=options, depth=100, count=60
    )
    found = certify(searcher, truth, target=0.9)
    assert_sound(found)
    counted = counter(searcher, truth)
    per_list = 900 / 16 + LIST_COST
    for row in found["sweep"]:
        nprobe, depth = row["nprobe"], row["rerank"]
        assert row["cost"] == round(per_list * nprobe + VECTOR_COST * depth)
        mean = counted(nprobe, 10, depth)
        assert row["recall"] == pytest.approx(mean, abs=1e-6)
        low, high = interval(mean, 60, 900)
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-6)
        everything = counted(nprobe, 10, None)
        assert row["coarse_miss"] == pytest.approx(1 - everything, abs=1e-6)
        assert set(row["after"]) == {str(at) for at in (1, 10, 100) if at <= depth}
        for level, (recall, *_) in row["after"].items():
            mean = counted(nprobe, int(level), depth)
            assert recall == pytest.approx(mean, abs=1e-6)
        for level, (recall, *_) in row["before"].items():
            mean = counted(nprobe, int(level), int(level))
            assert recall == pytest.approx(mean, abs=1e-6)


def test_levels_are_what_searches_for_so_many_return(tmp_path):
    options = {"kind": "ivf_pq", "code_bytes": 8, "nlist": 4}
    searcher, *_, truth = opened(tmp_path, clustered(2000, 48, rank=30), options=options, count=80)
    found = certify(searcher, truth)
    assert [level["k"] for level in found["levels"]] == [1, 10, 100]
    searcher.manifest["certificate"] = found
    searcher.manifest["search"] = {name: found[name] for name in ("nprobe", "rerank")}
    for level in found["levels"]:
        k = level["k"]
        assert level["rerank"] == min(searcher.default_rerank(k), 2000)
        ids, scores = searcher.search_vectors(
            truth.queries, k, rerank=level["rerank"], exclude=truth.query_ids[:, None]
        )
        recall = recall_at_k(ids, scores, truth.ids, truth.scores, k, "cosine").mean()
        assert recall - 0.005 <= level["after"][0] <= recall + 0.002


def test_the_choice_is_the_cheapest_and_repeats(tmp_path):
    options = {"kind": "ivf_pq", "code_bytes": 4, "nlist": 32}
    vectors = clustered(1500, 64, rank=30)
    searcher, *_, truth = opened(tmp_path / "a", vectors, options=options)
    found = certify(searcher, truth)
    assert_sound(found)
    assert found["reached"]
    assert untimed(found) == untimed(certify(searcher, truth))
    assert untimed(found) == untimed(certified(tmp_path / "b", vectors, options=options))
    rows = {(row["nprobe"], row["rerank"]): row for row in found["sweep"]}
    assert (found["nprobe"], found["rerank"]) in rows
    chosen = rows[found["nprobe"], found["rerank"]]
    reaching = [row for row in found["sweep"] if row["low"] >= 0.95]
    counted = counter(searcher, truth)
    # Nothing cheaper by a tenth would do. (Codes of equal score may come in another order at
    # another depth; then the choice is made a little deeper.)
    per_list = 1500 / 32 + LIST_COST
    for nprobe in {row["nprobe"] for row in found["sweep"]}:
        depth = int((0.9 * chosen["cost"] - nprobe * per_list) / VECTOR_COST)
        if depth >= 10:
            assert interval(counted(nprobe, 10, depth), 300, 1500)[0] < 0.95
    # Steps between the powers of two were tried, and one beyond the first that reached it.
    tried = sorted({row["nprobe"] for row in found["sweep"]})
    powers = [nprobe for nprobe in tried if nprobe & (nprobe - 1) == 0]
    assert powers == [1 << power for power in range(len(powers))]
    assert len(tried) > len(powers) or powers[-1] <= 4
    first = min(row["nprobe"] for row in reaching if row["nprobe"] in powers)
    assert powers[-1] >= min(2 * first, 32)


def test_what_cannot_win_is_not_measured(tmp_path):
    """Codes so coarse that no number of lists would do: the sweep ends early, and says so."""
    options = {"kind": "ivf_pq", "code_bytes": 1, "nlist": 64}
    searcher, *_, truth = opened(tmp_path, clustered(3000, 64, rank=60), options=options, count=200)
    found = certify(searcher, truth, target=0.99, max_rerank=20)
    assert_sound(found)
    assert not found["reached"]
    assert max(row["nprobe"] for row in found["sweep"]) < 64
    assert max(row["rerank"] for row in found["sweep"]) == 20
    most = max(row["recall"] for row in found["sweep"])
    assert most - NEGLIGIBLE - 1e-6 <= found["recall"] <= most
    # What was left out could not have done either.
    everything = counter(searcher, truth)(64, 10, 20)
    assert interval(everything, 200, 3000)[0] < 0.99


@pytest.mark.parametrize("metric", METRICS)
def test_an_exact_index_is_certified_too(metric, tmp_path):
    """Every vector was asked, so recall is known exactly, and nothing is lost."""
    found = certified(tmp_path, clustered(120, 16), metric, depth=100, count=120)
    assert_sound(found)
    assert (found["recall"], found["low"], found["high"]) == (1, 1, 1)
    assert found["losses"] == {"coarse_miss": 0, "code_error": 0, "final": 0}
    assert len(found["sweep"]) == 1
    assert [level["after"] for level in found["levels"]] == [[1, 1, 1]] * 3


@pytest.mark.parametrize("kind", ["exact", "ivf_pq"])
@pytest.mark.parametrize("depth", [10, 100])
def test_equally_good_answers_are_right_answers(kind, depth, tmp_path):
    """Forty copies of each vector: ten of them are the true neighbours, any other ten as good."""
    vectors = np.repeat(clustered(16, 32, groups=16), 40, axis=0)
    options = {"kind": kind, **({"nlist": 4, "code_bytes": 16} if kind == "ivf_pq" else {})}
    found = certified(tmp_path, vectors, options=options, depth=depth, count=50, target=0.9)
    assert_sound(found)
    assert found["recall"] == 1
    assert found["losses"] == {"coarse_miss": 0, "code_error": 0, "final": 0}
    assert all(row["recall"] == 1 for row in found["sweep"])


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_store_with_fewer_rows_than_k(rows, tmp_path):
    found = certified(tmp_path, clustered(rows, 8), count=rows)
    assert_sound(found)
    assert found["recall"] == 1
    assert found["rerank"] == rows
    assert found["population"] == rows


def test_no_query_proves_nothing(tmp_path):
    found = certified(tmp_path, clustered(100, 8), count=0)
    assert (found["low"], found["high"], found["reached"]) == (0, 1, False)
    assert "raise index.queries" in found["advice"]


def test_it_asks_for_enough_true_neighbours(tmp_path):
    searcher, *_, truth = opened(tmp_path, clustered(50, 8), depth=5, count=5)
    with pytest.raises(ValueError, match="recall@10 needs 10 true neighbours per query"):
        certify(searcher, truth)
    assert certify(searcher, truth, k=5)["levels"][-1]["k"] == 5


def test_neighbours_that_re_ranking_scores_wrongly_are_its_own_loss(tmp_path):
    """The truth of other vectors than those stored: candidates are right, their scores are not."""
    options = {"kind": "ivf_pq", "code_bytes": 32, "nlist": 4}
    searcher, *_, truth = opened(tmp_path, clustered(500, 64), options=options, count=100)
    truth.scores = truth.scores + np.float32(0.05)
    found = certify(searcher, truth)
    assert_sound(found)
    assert found["losses"]["final"] > 0.2
    assert "lookalike verify" in found["advice"]
