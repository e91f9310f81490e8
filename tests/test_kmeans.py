from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.ivf import coarse
from lookalike.ivf.coarse import apportion, kmeans, lloyd, means, nearest
from tests.vector_stores import clustered


def objective(rows, centroids):
    """Mean squared distance to the nearest centroid, in float64."""
    lists = nearest(rows, centroids)
    return float(((rows.astype("f8") - centroids[lists]) ** 2).sum(axis=1).mean())


def textbook(rows, k, iterations):
    """Lloyd's iterations from random rows, by the definitions."""
    centroids = rows[np.random.default_rng(1).permutation(len(rows))[:k]].astype("f8")
    for _ in range(iterations):
        squares = (centroids**2).sum(axis=1) - 2 * rows @ centroids.T
        lists = squares.argmin(axis=1)
        for one in np.unique(lists):
            centroids[one] = rows[lists == one].mean(axis=0)
    return centroids.astype("f4")


def test_means_are_those_of_the_rows(monkeypatch):
    monkeypatch.setattr(coarse, "_SUMMED", 64)  # several blocks
    rows = clustered(500, 6)
    lists = np.random.default_rng(0).integers(0, 20, 500)
    expected = np.stack([rows[lists == one].mean(axis=0) for one in range(20)])
    found = means(rows, lists, np.zeros((20, 6), dtype="f4"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_empty_list_takes_half_of_the_largest():
    rows = clustered(400, 8)
    centroids = np.stack([rows[0], rows[1], 1e6 + rows[2], 1e6 + rows[3]])  # two nobody is near
    after = lloyd(rows, centroids, 4)
    assert (np.bincount(nearest(rows, after), minlength=4) > 0).all()


def test_more_centroids_than_distinct_rows():
    rows = np.repeat(np.eye(3, dtype="f4"), 50, axis=0)
    for k in (5, 150):
        centroids = kmeans(rows, k, 0)
        assert centroids.shape == (k, 3)
        assert np.isfinite(centroids).all()
        assert objective(rows, centroids) < 1e-5
    same = np.ones((600, 3), dtype="f4")
    assert np.abs(kmeans(same, 300, 0) - 1).max() < 0.01


@pytest.mark.parametrize("k", [40, 400])
def test_as_good_as_lloyd(k):
    """One level, and two."""
    rows = clustered(8000, 16, groups=200)
    found = kmeans(rows, k, 0)
    assert found.shape == (k, 16)
    assert found.dtype == np.float32
    assert objective(rows, found) < 1.01 * objective(rows, textbook(rows, k, 10))
    sizes = np.bincount(nearest(rows, found), minlength=k)
    assert (sizes > 0).mean() > 0.99


def test_neighbouring_lists_have_neighbouring_numbers():
    rows = clustered(8000, 16)
    centroids = kmeans(rows, 400, 0)
    next_one = np.linalg.norm(np.diff(centroids, axis=0), axis=1)
    shuffled = np.linalg.norm(
        np.diff(np.random.default_rng(0).permutation(centroids), axis=0), axis=1
    )
    assert np.median(next_one) < 0.8 * np.median(shuffled)


def test_the_seed_decides():
    rows = clustered(2000, 8)
    assert (kmeans(rows, 300, 1) == kmeans(rows, 300, 1)).all()
    assert (kmeans(rows, 300, 1) != kmeans(rows, 300, 2)).any()


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=20), data=st.data())
def test_shares_are_in_proportion(sizes, data):
    rows = sum(sizes)
    if not rows:
        return
    total = data.draw(st.integers(1, rows))
    shares = apportion(np.array(sizes), total)
    assert shares.sum() == total
    assert (shares <= sizes).all()
    assert (np.abs(shares - np.array(sizes) * total / rows) < 1 + 1e-9).all()
