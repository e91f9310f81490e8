from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike import exact_neighbours as recall
from lookalike.distances import METRICS, better_is_higher, score, score_pairs
from lookalike.exact_neighbours import ExactNeighbours, interval, recall_at_k
from tests.test_distances import one_score
from tests.vector_stores import clustered


def brute_force(queries, own, ids, vectors, k, metric):
    """Ids of the k nearest, best first, ties by id; -1 where there are no more."""
    answers = np.full((len(queries), k), -1)
    for row, query in enumerate(queries):
        sign = -1 if better_is_higher(metric) else 1
        ranked = sorted(
            (sign * np.float32(one_score(query, vector, metric)), i)
            for i, vector in zip(ids, vectors, strict=True)
            if i != own[row]
        )
        answers[row, : len(ranked[:k])] = [i for _, i in ranked[:k]]
    return answers


def make(rng, n, d=6):
    return rng.uniform(0.05, 1, (n, d)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(METRICS),
    st.integers(0, 40),
    st.integers(1, 8),
    st.integers(1, 5),
    st.booleans(),
)
def test_any_grouping_and_order_gives_the_brute_force_answer(seed, metric, n, k, parts, ties):
    rng = np.random.default_rng(seed)
    # Few distinct vectors make many ties.
    vectors = make(rng, 3)[rng.integers(0, 3, n)] if ties else make(rng, n)
    ids = rng.permutation(1000)[:n]
    queries = make(rng, 3)
    own = np.array([-1, ids[0] if n else -1, 5000])
    cuts = np.array_split(rng.permutation(n), parts)
    accumulators = []
    for cut in cuts:
        one = ExactNeighbours(queries, own, k, metric)
        for half in np.array_split(cut, 2):
            one.update(ids[half], vectors[half])
        accumulators.append(ExactNeighbours.from_bytes(one.to_bytes()))
    rng.shuffle(accumulators)
    total = accumulators[0]
    for one in accumulators[1:]:
        total.merge(one)
    total.merge(accumulators[-1])  # seen twice counts once
    expected = brute_force(queries, own, ids, vectors, k, metric)
    np.testing.assert_array_equal(total.ids, expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(METRICS))
def test_merge_is_associative_and_commutative(seed, metric):
    rng = np.random.default_rng(seed)
    queries, own = make(rng, 2), np.array([-1, -1])
    blocks = [(np.arange(10) + 10 * i, make(rng, 10)) for i in range(3)]

    def seen(*order):
        one = ExactNeighbours(queries, own, 4, metric)
        for i in order:
            one.update(*blocks[i])
        return one

    left, right = seen(0), seen(1)
    left.merge(seen(1))
    left.merge(seen(2))
    right.merge(seen(2))
    right.merge(seen(0))
    np.testing.assert_array_equal(left.ids, right.ids)
    np.testing.assert_array_equal(left.scores, right.scores)


def test_a_query_that_is_a_row_is_not_its_own_neighbour():
    vectors = make(np.random.default_rng(0), 5)
    exact = ExactNeighbours(vectors, np.arange(5), 5, "cosine")
    exact.update(np.arange(5), vectors)
    assert all(row not in exact.ids[row] for row in range(5))
    assert (exact.ids[:, :4] >= 0).all()
    assert (exact.ids[:, 4] == -1).all()


def test_accumulators_of_other_queries_do_not_merge():
    one = ExactNeighbours(np.ones((1, 2)), [1], 3, "l2")
    with pytest.raises(ValueError, match="other queries"):
        one.merge(ExactNeighbours(np.ones((1, 2)), [2], 3, "l2"))
    with pytest.raises(ValueError, match="another k"):
        one.merge(ExactNeighbours(np.ones((1, 2)), [1], 4, "l2"))


def test_recall_counts_equally_good_answers():
    true_ids, true_scores = [[1, 2, 3]], [[0.9, 0.8, 0.8]]
    equal = recall_at_k([[1, 2, 9]], [[0.9, 0.8, 0.8]], true_ids, true_scores, 3, "cosine")
    worse = recall_at_k([[1, 2, 9]], [[0.9, 0.8, 0.7]], true_ids, true_scores, 3, "cosine")
    assert equal.tolist() == [1]
    assert worse.tolist() == pytest.approx([2 / 3])


def test_recall_of_l2_prefers_small_distances():
    found = recall_at_k([[1, 9]], [[0.1, 0.9]], [[1, 2]], [[0.1, 0.2]], 2, "l2")
    assert found.tolist() == [0.5]


def test_recall_does_not_count_the_same_id_twice_nor_nothing_as_found():
    true_ids, true_scores = [[1, 2, 3]], [[0.9, 0.8, 0.7]]
    twice = recall_at_k([[1, 1, 1]], [[0.9, 0.9, 0.9]], true_ids, true_scores, 3, "cosine")
    nothing = recall_at_k([[1, -1, -1]], [[0.9, 1, 1]], true_ids, true_scores, 3, "cosine")
    assert twice.tolist() == pytest.approx([1 / 3])
    assert nothing.tolist() == pytest.approx([1 / 3])


def test_recall_where_fewer_than_k_exist():
    few = recall_at_k([[5, -1]], [[0.5, -np.inf]], [[5, -1]], [[0.5, -np.inf]], 2, "cosine")
    none = recall_at_k([[-1]], [[-np.inf]], [[-1]], [[-np.inf]], 1, "cosine")
    assert few.tolist() == none.tolist() == [1]


def test_interval_is_wilsons():
    low, high = interval(0.5, 100)  # textbook: 0.4038 to 0.5962
    assert (low, high) == pytest.approx((0.40383, 0.59617), abs=1e-4)
    assert interval(1.0, 1000)[0] == pytest.approx(0.99617, abs=1e-4)


def test_interval_shrinks_to_a_point_when_all_were_queried():
    wide, narrow = interval(0.9, 50), interval(0.9, 50, 100)
    assert wide[0] < narrow[0] < 0.9 < narrow[1] < wide[1]
    assert interval(0.9, 100, 100) == (0.9, 0.9)
    assert interval(0.9, 0) == (0, 1)


@given(st.floats(0, 1), st.integers(1, 10**6), st.one_of(st.none(), st.integers(1, 10**9)))
def test_interval_holds_the_mean(mean, queries, population):
    low, high = interval(mean, queries, population)
    assert 0 <= low <= mean <= high <= 1


def definition(queries, own, ids, vectors, k, metric):
    """Ids and scores by `score` of all rows at once, ties by id."""
    scores = score(queries, vectors, metric)
    loss = np.where(ids == own[:, None], np.inf, -scores if better_is_higher(metric) else scores)
    order = np.lexsort((np.broadcast_to(ids, loss.shape), loss), axis=1)[:, :k]
    return ids[order], np.take_along_axis(scores, order, 1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shift", [0, 300])  # far from the origin, float32 says little
@pytest.mark.parametrize("scale", [1, 1e-13, 1e15])  # squares leave what float32 holds
def test_float32_products_leave_nothing_out(metric, shift, scale):
    rng = np.random.default_rng(3)
    vectors = clustered(3000, 24) + np.float32(shift)
    vectors[rng.integers(0, 3000, 300)] = vectors[rng.integers(0, 3000, 300)]  # equal rows
    vectors *= np.float32(scale)
    if metric == "jaccard":
        vectors = np.abs(vectors)
    ids = rng.permutation(10_000)[:3000]
    chosen = rng.integers(0, 3000, 20)
    exact = ExactNeighbours(vectors[chosen], ids[chosen], 30, metric)
    for block in np.array_split(np.arange(3000), 7):
        exact.update(ids[block], vectors[block])
    expected, scores = definition(vectors[chosen], ids[chosen], ids, vectors, 30, metric)
    np.testing.assert_array_equal(exact.scores, scores)
    np.testing.assert_array_equal(exact.ids, expected)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_few_rows_are_scored_exactly_once_the_best_are_known(metric, monkeypatch):
    vectors = clustered(20_000, 32)
    exact = ExactNeighbours(vectors[:50], np.arange(50), 10, metric)
    pairs = []

    def counted(queries, rows, chosen, *rest):
        pairs.append(len(chosen))
        return score_pairs(queries, rows, chosen, *rest)

    monkeypatch.setattr(recall, "score_pairs", counted)
    for start in range(0, 20_000, 4000):
        exact.update(np.arange(start, start + 4000), vectors[start : start + 4000])
    assert sum(pairs) < 50 * 10 * 6  # of 50 * 20,000
    assert pairs[-1] < pairs[0]


def test_an_id_that_comes_again_within_a_block_or_later_counts_once():
    vectors = clustered(500, 8)
    ids = np.arange(500)
    once = ExactNeighbours(vectors[:5], ids[:5], 20, "cosine")
    once.update(ids, vectors)
    again = ExactNeighbours(vectors[:5], ids[:5], 20, "cosine")
    twice = np.repeat(ids, 2)
    again.update(twice, vectors[twice])
    again.update(ids[::-1], vectors[::-1])
    np.testing.assert_array_equal(again.ids, once.ids)
