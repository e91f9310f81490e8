"""Near-copies in long lists: by leaders and balls, against all pairs compared one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.copies import balls, tiles
from lookalike.copies.components import Links, grouped
from lookalike.copies.spec import passes
from lookalike.copies.tiles import Rows, near_pairs
from lookalike.distances import score

METRICS = ("cosine", "l2", "jaccard", "inner_product")
Groups = set[frozenset[int]]


def components(*pairs: tuple[Any, Any]) -> Groups:
    links = Links()
    for left, right in pairs:
        links.add(left, right)
    return {frozenset(own.tolist()) for own in grouped(*links.arrays())}


def all_pairs(rows: Rows, threshold: float, metric: str) -> Groups:
    left, right = near_pairs(rows, rows, threshold, metric)
    return components((rows.ids[left], rows.ids[right]))


def walked(rows: Rows, threshold: float, metric: str) -> Groups:
    """The same of many pairs, by walking from row to row."""
    left, found = set(range(len(rows))), set()
    near = np.empty((len(rows), len(rows)), dtype=bool)
    for start in range(0, len(rows), 256):
        some = slice(start, start + 256)
        near[some] = passes(score(rows.vectors[some], rows.vectors, metric), threshold, metric)
    while left:
        group, edge = set(), [left.pop()]
        while edge:
            group.add(row := edge.pop())
            new = left.intersection(np.flatnonzero(near[row]).tolist())
            left -= new
            edge += new
        if len(group) > 1:
            found.add(frozenset(rows.ids[sorted(group)].tolist()))
    return found


def by_balls(rows: Rows, threshold: float, metric: str, cut: int) -> Groups:
    """Rows that look into two parts of themselves, as a task does."""
    parts = (rows[:cut], rows[cut:])
    return components(
        *(found for part in parts for found in balls.links(rows, part, threshold, metric))
    )


def heap(rng: np.random.Generator, n: int, d: int, spread: float) -> Any:
    return 3 * rng.standard_normal(d) + spread * rng.standard_normal((n, d))


def rows_of(vectors: Any, metric: str, values: Any = None) -> Rows:
    vectors = np.abs(vectors) if metric == "jaccard" else vectors
    ids = np.arange(len(vectors), dtype=np.int64)
    values = np.zeros(len(ids)) if values is None else values
    return Rows(ids, values.astype(np.uint64), vectors.astype(np.float32))


@given(
    seed=st.integers(0, 10**6),
    metric=st.sampled_from(METRICS),
    distance=st.floats(0.02, 1.2),
    spreads=st.lists(st.floats(0, 1.5), min_size=1, max_size=5),
    values=st.integers(1, 3),
    d=st.integers(1, 6),
)
def test_groups_are_those_of_all_pairs(
    seed: int, metric: str, distance: float, spreads: list[float], values: int, d: int
) -> None:
    """Of piles of every width, wider than the threshold and narrower than a ball."""
    rng = np.random.default_rng(seed)
    vectors = np.concatenate([heap(rng, int(rng.integers(1, 40)), d, one) for one in spreads])
    vectors[rng.random(len(vectors)) < 0.03] = 0
    rows = rows_of(rng.permutation(vectors), metric, rng.integers(0, values, len(vectors)))
    threshold = {
        "cosine": float(np.cos(min(distance, 1.5))),
        "jaccard": 1 - distance / 2,
        "l2": 2 * distance,
        "inner_product": 9 * d * distance,
    }[metric]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(balls, "_LONG", 2)
        patched.setattr(balls, "_FEWEST", 2)
        patched.setattr(balls, "_LEADERS", 8)
        patched.setattr(balls, "_ROWS", 7)
        patched.setattr(tiles, "_QUERIES", 11)
        patched.setattr(tiles, "_MEMBERS", 13)
        found = by_balls(rows, threshold, metric, len(rows) // 3)
    assert found == all_pairs(rows, threshold, metric)


@pytest.mark.parametrize(("metric", "threshold"), [("cosine", 0.97), ("l2", 2.0), ("jaccard", 0.9)])
def test_a_pile_of_near_equal_vectors_is_compared_with_few_rows(
    metric: str, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five thousand, with groups and single rows beside: of 25 million pairs few are compared."""
    rng = np.random.default_rng(1)
    others = np.concatenate([heap(rng, 3, 24, 0.05) for _ in range(150)] + [heap(rng, 300, 24, 2)])
    vectors = np.concatenate([heap(rng, 5000, 24, 0.03), others])
    rows = rows_of(rng.permutation(vectors), metric)
    compared = []
    usual = tiles.Estimator.candidates

    def counted(self: Any, vectors: Any, edges: Any, k: int) -> Any:
        compared.append(len(edges) * len(vectors))
        return usual(self, vectors, edges, k)

    expected = walked(rows, threshold, metric)
    monkeypatch.setattr(tiles.Estimator, "candidates", counted)
    assert by_balls(rows, threshold, metric, 2800) == expected
    assert max(map(len, expected)) >= 5000
    assert len(expected) >= 100
    assert sum(compared) < 25_000_000 / 10


def test_a_row_is_not_linked_with_itself() -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(np.concatenate([heap(rng, 3000, 8, 0.01), heap(rng, 500, 8, 3)]), "cosine")
    for left, right in balls.links(rows, rows, 0.97, "cosine"):
        assert (left != right).all()
