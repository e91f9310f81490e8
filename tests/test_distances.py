from __future__ import annotations

import numpy as np
import pytest

from lookalike.distances import METRICS, candidate_vectors, check_vectors, score, too_long, top_k
from lookalike.errors import RequestError
from tests.vector_stores import clustered


def one_score(a: np.ndarray, b: np.ndarray, metric: str) -> float:
    """The definitions, for one pair, without a shared line of code."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric == "cosine":
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))
    if metric == "inner_product":
        return float(a @ b)
    if metric == "l2":
        return float(np.linalg.norm(a - b))
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


@pytest.mark.parametrize("metric", METRICS)
def test_scores_match_the_definitions(metric):
    rng = np.random.default_rng(0)
    queries, vectors = (rng.uniform(0.05, 1, (n, 6)).astype(np.float32) for n in (4, 9))
    expected = [[one_score(q, v, metric) for v in vectors] for q in queries]
    found = score(queries, vectors, metric)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_equal_vectors_have_distance_zero_even_far_from_the_origin():
    far = (1000 + np.random.default_rng(0).uniform(0, 1, (3, 50))).astype(np.float32)
    assert score(far, far, "l2").diagonal().max() < 1e-3


def test_jaccard_and_cosine_of_zero_vectors_are_zero_and_not_nan():
    zero = np.zeros((1, 3), np.float32)
    assert score(zero, zero, "jaccard")[0, 0] == 0
    assert score(zero, np.ones((1, 3)), "cosine")[0, 0] == 0


def test_top_k_keeps_one_of_each_id_and_pads():
    ids, scores = top_k(
        np.array([[7, -1, 7, 3]]), np.array([[2, 9, 2, 5]], np.float32), 3, "cosine"
    )
    assert ids.tolist() == [[3, 7, -1]]
    assert scores.tolist() == [[5, 2, -np.inf]]


@pytest.mark.parametrize(
    ("vectors", "metric", "message"),
    [
        ([[1, 2, 3]], "l2", r"shape \(n, 2\), got \(1, 3\)"),
        ([[1, 2], [np.nan, 0]], "l2", "vector 1 has a value that is not finite"),
        ([[np.inf, 2]], "cosine", "vector 0 has a value that is not finite"),
        ([[1, 1], [0, 0]], "cosine", "vector 1 is zero, which cosine forbids"),
        ([[0, 0]], "jaccard", "vector 0 is zero"),
        ([[1, 1], [2, -1]], "jaccard", "vector 1 has a negative value"),
        (
            [[1, 1], [3e38, -3e38]],
            "l2",
            r"vector 1 is too long: its length is 4.243e\+38, l2 takes",
        ),
        ([[1e15, 1e15]], "inner_product", "use the metric cosine"),
    ],
)
def test_vectors_that_cannot_be_indexed_are_refused(vectors, metric, message):
    with pytest.raises(RequestError, match=message):
        check_vectors(np.array(vectors, np.float32), 2, metric)


def test_candidates_are_unit_vectors_for_cosine_and_jaccard():
    vectors = np.abs(clustered(20, 8))
    for metric in ("cosine", "jaccard"):
        lengths = np.linalg.norm(candidate_vectors(vectors, metric), axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-6)
    assert candidate_vectors(vectors, "l2") is vectors


@pytest.mark.parametrize("metric", METRICS)
def test_the_longest_vectors_that_are_taken_have_finite_scores(metric):
    """Of both signs and at right angles: whatever is taken can be compared in float32."""
    longest = {"cosine": 3e38, "jaccard": 3e38}.get(metric, 0.99e15)
    vectors = np.array([[1, 0], [0, 1], [-1, 0], [1e-3, 1e-3]], np.float32) * np.float32(longest)
    vectors = np.abs(vectors) if metric == "jaccard" else vectors
    taken = check_vectors(vectors, 2, metric)
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(score(taken, taken, metric)).all()
        assert np.isfinite(candidate_vectors(taken, metric)).all()
        assert not too_long(taken, metric).any()
    longer = np.full((3, 2), 2 * longest if longest < 1e38 else 3.4e38, np.float32)
    assert too_long(longer, metric).tolist() == [metric in ("l2", "inner_product")] * 3
