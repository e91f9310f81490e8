"""Exact neighbours of queries among rows that stream by, and recall against them.

Scores do not depend on how rows were cut into blocks (`lookalike.distances`) and ties are
broken by id: accumulators can be fed and merged in any order.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from lookalike.distances import (
    Ids,
    Scores,
    Vectors,
    better_is_higher,
    score_pairs,
    top_k,
    worst_score,
)
from lookalike.estimates import Estimator

TOLERANCE = 1e-6
_ROWS_AT_ONCE = 8192
_QUERIES_AT_ONCE = 64


class ExactNeighbours:
    """The true k nearest neighbours of some queries among rows that stream by.

    `update` and `merge` may come in any order and any grouping, and a block that comes twice counts
    once: what a distributed combine needs.
    """

    def __init__(self, queries: npt.ArrayLike, query_ids: npt.ArrayLike, k: int, metric: str):
        """Start with no rows.

        Args:
            queries: (q, d) float32.
            query_ids: (q,) int64, the row that each query is, left out of its neighbours; -1 for
                a query that is no row.
            k: Neighbours to keep.
            metric: One of METRICS.
        """
        self.queries: Vectors = np.asarray(queries, dtype=np.float32)
        self.query_ids: Ids = np.asarray(query_ids, dtype=np.int64)
        self.k, self.metric = k, metric
        self.ids: Ids = np.full((len(self.queries), k), -1, dtype=np.int64)
        self.scores: Scores = np.full(self.ids.shape, worst_score(metric), dtype=np.float32)
        self._estimator: Estimator | None = None

    def update(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Consider rows: ids (n,) int64 and vectors (n, d) float32.

        Products in float32 tell which rows may be among the k best; only their scores are computed
        exactly. Rows that come later cost little more than that one product.
        """
        block, first = np.unique(np.asarray(ids, dtype=np.int64), return_index=True)
        rows: Vectors = np.asarray(vectors, dtype=np.float32)
        if len(block) < len(rows):
            rows = rows[first]
        elif not np.array_equal(first, np.arange(len(first))):
            block = np.asarray(ids, dtype=np.int64)
        if not len(self.queries):
            return
        for start in range(0, len(block), _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            self._consider(block[some], rows[some])

    def _consider(self, ids: Ids, vectors: Vectors) -> None:
        if self._estimator is None:
            self._estimator = Estimator(self.queries, self.metric)
        edges = np.where(self.ids[:, -1] < 0, worst_score(self.metric), self.scores[:, -1])
        chosen, rows = self._estimator.candidates(vectors, edges, self.k)
        found = np.where(ids[rows] == self.query_ids[chosen], -1, ids[rows])
        scores = score_pairs(self.queries, vectors, chosen, rows, self.metric)
        counts = np.bincount(chosen, minlength=len(self.queries))
        starts = np.cumsum(counts) - counts
        # Queries with about as many candidates together, so that padding stays small.
        order = np.argsort(counts, kind="stable")[np.count_nonzero(counts == 0) :]
        for begin in range(0, len(order), _QUERIES_AT_ONCE):
            group = order[begin : begin + _QUERIES_AT_ONCE]
            places = np.arange(counts[group[-1]])
            there = places < counts[group, None]
            at = np.where(there, starts[group, None] + places, 0)
            self._keep(group, np.where(there, found[at], -1), scores[at])

    def merge(self, other: ExactNeighbours) -> None:
        """Take in the rows that another accumulator for the same queries has seen."""
        same = (self.k, self.metric) == (other.k, other.metric)
        if not same or not np.array_equal(self.query_ids, other.query_ids):
            raise ValueError("cannot merge neighbours of other queries, another k or metric")
        self._keep(np.arange(len(self.queries)), other.ids, other.scores)

    def _keep(self, queries: npt.NDArray[np.intp], ids: Ids, scores: Scores) -> None:
        self.ids[queries], self.scores[queries] = top_k(
            np.concatenate([self.ids[queries], ids], axis=1),
            np.concatenate([self.scores[queries], scores], axis=1),
            self.k,
            self.metric,
        )

    def to_bytes(self) -> bytes:
        """Everything, as an uncompressed .npz file."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            queries=self.queries,
            query_ids=self.query_ids,
            ids=self.ids,
            scores=self.scores,
            metric=np.array(self.metric),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> ExactNeighbours:
        """The inverse of `to_bytes`."""
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            read = cls(
                stored["queries"],
                stored["query_ids"],
                stored["ids"].shape[1],
                str(stored["metric"]),
            )
            read.ids, read.scores = stored["ids"], stored["scores"]
        return read


def recall_at_k(
    found_ids: npt.ArrayLike,
    found_scores: npt.ArrayLike,
    true_ids: npt.ArrayLike,
    true_scores: npt.ArrayLike,
    k: int,
    metric: str,
) -> npt.NDArray[np.float64]:
    """Share of the true k nearest neighbours found, per query: (q,) float64.

    A neighbour counts if its exact score is at least as good as the k-th true one (within
    TOLERANCE, relative above 1): equally good answers are right answers. The same id counts once.
    Where there are fewer than k true neighbours, the share is of those; with none it is 1.

    Args:
        found_ids: (q, >= k) int64 as returned, best first, -1 for nothing.
        found_scores: Their exact scores.
        true_ids: (q, >= k) int64 from `ExactNeighbours`.
        true_scores: Their scores.
        k: How many of each to look at.
        metric: Decides what is better.
    """
    found, got = np.asarray(found_ids)[:, :k], np.asarray(found_scores, np.float64)[:, :k]
    true, best = np.asarray(true_ids)[:, :k], np.asarray(true_scores, np.float64)[:, :k]
    shares = np.ones(len(true))
    for row in range(len(true)):
        there = int((true[row] >= 0).sum())
        if there == 0:
            continue
        edge = best[row, there - 1]
        slack = TOLERANCE * max(1.0, abs(edge))
        _, first = np.unique(found[row], return_index=True)
        first = first[found[row, first] >= 0]
        good = got[row, first]
        good = good >= edge - slack if better_is_higher(metric) else good <= edge + slack
        shares[row] = min(int(good.sum()), there) / there
    return shares


def interval(mean: float, queries: int, population: int | None = None) -> tuple[float, float]:
    """Wilson's 95% interval (Wilson 1927) of a mean of values in [0, 1].

    Conservative for shares, whose variance is at most that of a yes or no of the same mean. With
    `population`, the number of vectors the queries were drawn from, the finite population
    correction applies: where every vector was a query, the mean is known and the interval a point.
    """
    if queries < 1:
        return 0.0, 1.0
    n = float(queries)
    if population is not None:
        if queries >= population:
            return mean, mean
        n *= (population - 1) / (population - queries)
    z2 = 1.959964**2
    centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * mean * (1 - mean) / n + z2 * z2 / (4 * n * n)) ** 0.5 / (1 + z2 / n)
    return max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))
