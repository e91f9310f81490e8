"""Counting right answers, against plain loops and against `recall_at_k`."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lookalike.distances import top_k
from lookalike.exact_neighbours import ExactNeighbours, recall_at_k
from lookalike.recall.answers import columns_of, in_rows, reachable, right_answers, without_own

small_ids = st.lists(st.integers(-1, 12), min_size=1, max_size=15)


@given(small_ids, st.sets(st.integers(0, 12), max_size=8), st.integers(0, 3))
def test_columns_are_places_among_the_known_neighbours(candidates, known, padding):
    wanted = [*known, *[-1] * padding]
    found = columns_of(np.array([candidates]), np.array([wanted], dtype=np.int64).reshape(1, -1))
    expected = [
        wanted.index(one) if one in wanted and one >= 0 else len(wanted) for one in candidates
    ]
    assert found.tolist() == [expected]


@given(small_ids, st.integers(0, 12), st.integers(1, 20))
def test_the_query_is_left_out_and_the_rest_keeps_its_order(candidates, own, depth):
    found = without_own(np.array([candidates]), np.array([own]), depth)[0].tolist()
    rest = [one for one in candidates if one not in (own, -1)][:depth]
    assert found[: len(rest)] == rest
    assert set(found[len(rest) :]) <= {-1}
    assert len(found) == min(depth, len(candidates))


def test_in_rows_looks_in_its_own_row():
    found = in_rows(np.array([[1, 2, -1], [1, 2, 9]]), np.array([[1, 9], [2, -1]]), 10)
    assert found.tolist() == [[True, False, False], [False, True, False]]
    assert in_rows(np.zeros((0, 3), int), np.zeros((0, 1), int), 4).shape == (0, 3)


def test_reachable_counts_each_row_once():
    """Known: columns 0..2, two of them good. A candidate is in a probed list, whatever is said."""
    columns = np.array([[0, 3, 3, 2]])
    found = np.array([[True, True, False, False]])
    width = np.array([2])
    for probed, expected in (
        ([False, False, True], 2),
        ([True, True, True], 3),
        ([False, True, False], 3),
    ):
        assert reachable(found, columns, np.array([probed]), width).tolist() == [expected]


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=14),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from(["l2", "inner_product"]),
    st.data(),
)
def test_shares_are_recall_at_k_whatever_the_ties(values, k, more, metric, data):
    """One query at 0 (l2) or 1, rows on a line with many ties, and any candidates."""
    scores = np.array([values], dtype=np.float32)
    ids = np.arange(len(values))[None, :]
    truth = ExactNeighbours(np.ones((1, 1)), [-1], k + more, metric)
    truth.ids, truth.scores = top_k(ids, scores, k + more, metric)
    candidates = np.array([data.draw(st.permutations(range(len(values))))])
    candidates = candidates[:, : data.draw(st.integers(1, len(values)))]
    exact = scores[:, candidates[0]]
    right, rows = right_answers(truth, k), slice(0, 1)
    columns = columns_of(candidates, truth.ids)
    good = columns < right.width[:, None]
    if right.unsettled[0]:
        good |= right.good(exact, rows)
    else:
        assert np.array_equal(good, right.good(exact, rows))
    best_ids, best = top_k(candidates, exact, k, metric)
    expected = recall_at_k(best_ids, best, truth.ids, truth.scores, k, metric)
    assert right.shares(good.sum(axis=1), rows).tolist() == expected.tolist()
