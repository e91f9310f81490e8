"""Which rows may be among the nearest of a query: products in float32, and their error bound.

What is left out cannot be among the nearest by exact scores; of what is kept, most is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lookalike.distances import (
    Scores,
    Vectors,
    are_ordinary,
    candidate_vectors,
    squared_lengths,
)
from lookalike.products import inner_products

Places = npt.NDArray[np.intp]

_COLUMNS_AT_ONCE = 2048  # estimates that stay in the processor's cache while they are compared


class Estimator:
    """Queries, prepared for blocks of rows."""

    def __init__(self, queries: Vectors, metric: str) -> None:
        """Prepare queries (q, d) float32."""
        self._metric = metric
        self._queries = candidate_vectors(queries, metric) if metric == "cosine" else queries
        squares = squared_lengths(self._queries)
        self._usable = metric != "jaccard" and bool(are_ordinary(squares).all())
        self._lengths = np.sqrt(squares.astype(np.float64))

    def candidates(self, vectors: Vectors, edges: Scores, k: int) -> tuple[Places, Places]:
        """Pairs of a query and a row that may be among the query's k nearest.

        Args:
            vectors: (n, d) float32.
            edges: (q,), exact score of each query's k-th nearest row so far; an infinity where
                there are fewer.
            k: Neighbours wanted; one row more is allowed for, which may be the query itself.

        Returns:
            Queries and rows (m,), ascending by query.
        """
        squares = squared_lengths(vectors)
        if not (self._usable and are_ordinary(squares).all()):
            pairs = np.arange(len(self._queries) * len(vectors))
            return pairs // max(1, len(vectors)), pairs % max(1, len(vectors))
        lengths = np.sqrt(squares.astype(np.float64))
        slack = self._slack(float(lengths.max(initial=0)))
        limits = self._limits(edges) - slack
        open_ended = np.flatnonzero(~np.isfinite(limits))
        if len(open_ended) and len(vectors) > k:
            some = self._estimates(vectors, lengths, open_ended)
            # At least k rows other than the query have an exact score as good as this.
            limits[open_ended] = (
                np.partition(some, -k - 1, axis=1)[:, -k - 1] - 2 * slack[open_ended]
            )
        found = []
        for start in range(0, len(vectors), _COLUMNS_AT_ONCE):
            columns = slice(start, start + _COLUMNS_AT_ONCE)
            estimates = self._estimates(vectors[columns], lengths[columns])
            kept = np.flatnonzero(estimates >= limits[:, None].astype(np.float32))
            found.append(np.divmod(kept, estimates.shape[1]) + np.array([[0], [start]]))
        queries, rows = np.concatenate(found, axis=1)
        order = np.argsort(queries, kind="stable")
        return queries[order], rows[order]

    def _estimates(
        self, vectors: Vectors, lengths: npt.NDArray[np.float64], queries: Places | None = None
    ) -> Scores:
        """(q, n), higher is nearer: cosine, inner product, or that less half the squared length."""
        left = self._queries if queries is None else self._queries[queries]
        estimates = inner_products(left, vectors)
        if self._metric == "cosine":
            estimates *= (1 / lengths).astype(np.float32)
        elif self._metric == "l2":
            estimates -= (lengths**2 / 2).astype(np.float32)
        return np.asarray(estimates, dtype=np.float32)

    def _limits(self, edges: Scores) -> npt.NDArray[np.float64]:
        """Exact scores as estimates: -infinity for an infinity."""
        wide = edges.astype(np.float64)
        if self._metric != "l2":
            return np.asarray(wide - np.where(np.isfinite(wide), np.abs(wide), 0) * 2.0**-22)
        return np.asarray((self._lengths**2 - (wide * (1 + 2.0**-22)) ** 2) / 2)

    def _slack(self, longest: float) -> npt.NDArray[np.float64]:
        """Bound (q,) on the error of an estimate: Higham's for a sum of products, doubled."""
        unit = (self._queries.shape[1] + 32) * 2.0**-23
        if self._metric == "cosine":
            longest = 1.0
        extra = longest**2 if self._metric == "l2" else 0.0
        return np.asarray(unit * (self._lengths * longest + extra))
