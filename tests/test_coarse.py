from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.ivf import coarse as coarse_module
from lookalike.ivf.coarse import Coarse, Groups, group, largest
from tests.vector_stores import clustered


def distances(rows, centroids):
    """Squared, (n, k), in float64."""
    return ((rows[:, None].astype("f8") - centroids[None]) ** 2).sum(axis=2)


def ranked(queries, centroids, metric):
    products = queries.astype("f8") @ centroids.astype("f8").T
    if metric == "inner_product":
        return np.argsort(-products, axis=1), products
    squares = distances(queries, centroids)
    return np.argsort(squares, axis=1), squares if metric == "l2" else products


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 7, 300])
def test_a_row_goes_to_the_nearest_list(k):
    rows, centroids = clustered(500, 12), clustered(k, 12)
    found = Coarse(centroids).assign(rows)
    assert found.dtype == np.int64
    assert (found == distances(rows, centroids).argmin(axis=1)).all()


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_flat_search_ranks_all_lists(metric):
    queries, centroids = clustered(50, 12, seed=0), clustered(90, 12, seed=0)[:, :]
    centroids *= np.linspace(0.2, 3, 90, dtype="f4")[:, None]  # of very different norms
    if metric == "cosine":
        queries = unit(queries)
    order, scores = ranked(queries, centroids, metric)
    for nprobe in (1, 9, 90, 200):
        found, lists = Coarse(centroids).search(queries, nprobe, metric)
        width = min(nprobe, 90)
        assert lists.shape == found.shape == (50, width)
        assert (lists == order[:, :width]).mean() > 0.999  # but for ties within float32
        np.testing.assert_allclose(
            found, np.take_along_axis(scores, lists, axis=1), rtol=1e-4, atol=1e-3
        )


def test_two_levels_find_nearly_the_same_lists(monkeypatch):
    rows = clustered(3000, 24, rank=8)
    centroids, rows = rows[:1000], rows[1000:]
    flat = Coarse(centroids)
    lists, (_, near) = flat.assign(rows), flat.search(rows, 16, "l2")
    monkeypatch.setattr(coarse_module, "FLAT_BELOW", 1)
    monkeypatch.setattr(coarse_module, "SEARCH_FLAT_BELOW", 1)
    two = Coarse(centroids)
    assert (two.assign(rows) == lists).mean() > 0.97
    scores, found = two.search(rows, 16, "l2")
    same = np.mean([len(np.intersect1d(a, b)) / 16 for a, b in zip(near, found, strict=True)])
    assert same > 0.97
    np.testing.assert_allclose(
        scores, np.take_along_axis(distances(rows, centroids), found, axis=1), rtol=1e-3, atol=1e-2
    )
    assert (np.diff(scores, axis=1) >= 0).all()
    assert (
        two.search(rows, 16, "inner_product")[1] == flat.search(rows, 16, "inner_product")[1]
    ).all()


@given(data=st.data(), k=st.integers(1, 40), probe=st.integers(1, 50))
def test_all_groups_together_are_exact(data, k, probe):
    """Whatever the groups are: of one centroid, of all, in any order."""
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    centroids, rows = (random.standard_normal((n, 5)).astype("f4") for n in (k, 30))
    chosen = data.draw(st.lists(st.integers(0, 6), min_size=k, max_size=k))
    numbers = np.unique(chosen, return_inverse=True)[1]
    groups = Groups(centroids, numbers)
    exact = distances(rows, centroids)
    assert (groups.nearest(rows, 7) == exact.argmin(axis=1)).all()
    nprobe = min(probe, k)
    products, lists = groups.search(rows, nprobe)  # 16 groups and more are all of them
    assert (lists == np.argsort(exact, axis=1)[:, :nprobe]).all()
    np.testing.assert_allclose(
        products, np.take_along_axis(rows @ centroids.T, lists, axis=1), atol=1e-4
    )
    # A row's nearest centroid among those of its nearest group, by the definition.
    means = np.stack([centroids[numbers == one].mean(axis=0) for one in range(max(numbers) + 1)])
    only = np.where(numbers[None] == distances(rows, means).argmin(axis=1)[:, None], exact, np.inf)
    assert (groups.nearest(rows, 1) == only.argmin(axis=1)).all()


def test_rows_in_other_blocks_go_to_the_same_lists(monkeypatch):
    monkeypatch.setattr(coarse_module, "FLAT_BELOW", 1)
    rows = clustered(2000, 24)
    coarse = Coarse(rows[:400])
    pieces = [coarse.assign(part) for part in np.array_split(rows, 7)]
    assert (np.concatenate(pieces) == coarse.assign(rows)).mean() > 0.999


def test_equal_centroids_and_no_rows():
    centroids = np.ones((60, 4), dtype="f4")
    numbers = group(centroids)
    assert set(numbers) == set(range(max(numbers) + 1))  # none is empty
    assert (Coarse(centroids).assign(centroids) == 0).all()
    empty = np.empty((0, 4), dtype="f4")
    assert Coarse(centroids).assign(empty).shape == (0,)
    assert Coarse(centroids).search(empty, 3, "l2")[1].shape == (0, 3)


def test_largest_come_first():
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(50, dtype="f4"), (9, 1)), axis=1)
    for count in (1, 7, 50):
        found = np.take_along_axis(scores, largest(scores, count), axis=1)
        assert (found == np.arange(49, 49 - count, -1)).all()
