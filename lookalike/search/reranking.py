"""Exact scores of candidates, from the stored vectors.

Scoring takes two steps. First all candidates are scored in float32. Each such score has an error
that is bounded, so some candidates certainly are not among the best k: those that are worse than
the k-th by more than the bound. The others, often little more than k, are scored again in float64,
and these are the scores returned. Vectors are read for a few queries at a time, in ascending order
of address, and are not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Scores, Vectors, candidate_vectors, top_k, worst_score
from lookalike.store.vector_reader import VectorReader

_EXACT_MARGIN = 16  # candidates beyond k, against rounding at the edge
_READ_BYTES = 4 << 20  # of vectors at a time: what a core's cache holds
_ROUNDING = 2.0**-24  # of one operation in float32, relative
_TINY = 2.0**-126  # below, float32 has fewer digits

Measure = Callable[[Vectors, Vectors], npt.NDArray[np.float32]]


class _Vectors(Protocol):
    def vectors(self, ids: Ids) -> Vectors: ...


class _Held:
    """Stored vectors of some candidates, in memory."""

    def __init__(self, reader: VectorReader, candidates: Ids) -> None:
        self._ids = np.unique(candidates[candidates >= 0])
        self._rows = reader.vectors(self._ids)

    def vectors(self, ids: Ids) -> Vectors:
        return np.asarray(self._rows[np.searchsorted(self._ids, ids)])


def exact_depth(metric: str, rows: int, k: int) -> int:
    """Candidates of an exact index that a search for k of so many rows scores exactly."""
    # A histogram's overlap and the candidates' inner product rank differently.
    return rows if metric == "jaccard" else k + _EXACT_MARGIN


def best_candidates(
    reader: VectorReader, queries: Vectors, candidates: Ids, k: int, metric: str
) -> tuple[Ids, Scores]:
    """The best k of each query's own candidates, by exact score, ties by id.

    Args:
        reader: Of the stored vectors.
        queries: (n, dim) float32.
        candidates: (n, m) int64, -1 for nothing, no other id twice in a row.
        k: How many.
        metric: Of the scores.

    Returns:
        Ids (n, k) int64, padded with -1, and scores (n, k) float32, padded with the worst score.
    """
    vectors: _Vectors = reader
    if candidates.shape[1] > k and metric in _ROUGH:
        if 4 * candidates.size * queries.shape[1] <= _READ_BYTES:
            vectors = _Held(reader, candidates)  # for both times that they are scored
        candidates = _hopeful(vectors, queries, candidates, k, metric)
    return top_k(candidates, exact_scores(vectors, queries, candidates, metric), k, metric)


def exact_scores(reader: _Vectors, queries: Vectors, candidates: Ids, metric: str) -> Scores:
    """Exact scores (n, m) float32 of each query's own candidates (n, m), the worst for -1."""

    def exact(own: Vectors, vectors: Vectors) -> Scores:
        return own_scores(own, vectors, metric)

    scores: Scores = _measured(reader, queries, candidates, exact, 1)[0]
    scores[candidates < 0] = worst_score(metric)
    return scores


def own_scores(queries: npt.ArrayLike, vectors: npt.ArrayLike, metric: str) -> Scores:
    """Exact scores (n, m) float32 of queries (n, d) and own vectors of each (n, m, d).

    As `lookalike.distances.score` gives them.
    """
    left, right = np.asarray(queries, np.float64), np.asarray(vectors, np.float64)
    if metric == "jaccard":
        apart = np.abs(right - left[:, None]).sum(axis=2)
        total = left.sum(axis=1)[:, None] + right.sum(axis=2)
        above = total + apart
        return np.asarray((total - apart) / np.where(above > 0, above, 1), dtype=np.float32)
    if metric == "l2":
        return np.asarray(np.sqrt(_squares(right - left[:, None])), dtype=np.float32)
    products = _products(left, right)
    if metric == "cosine":
        lengths = np.sqrt(_squares(left[:, None]) * _squares(right))
        products /= np.where(lengths > 0, lengths, 1)
    return np.asarray(products, dtype=np.float32)


# einsum, for the threads of a matrix product would compete with those of the pool.
def _products(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(np.einsum("nd,nmd->nm", left, right))


def _squares(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(np.einsum("nmd,nmd->nm", rows, rows))


def _hopeful(reader: _Vectors, queries: Vectors, candidates: Ids, k: int, metric: str) -> Ids:
    """The candidates that float32 cannot tell from the best k, (n, w) int64, padded with -1.

    With k = 2, losses of -0.91, -0.90, -0.89999995 and -0.80 and an error of at most 1e-6, the
    first three are kept: the third may be better than the second. The fourth cannot be.
    """
    there, dim = candidates >= 0, queries.shape[1]
    queries = candidate_vectors(queries, metric)
    with np.errstate(all="ignore"):  # what overflows, or is too short to tell, is nan, and stays
        # Losses in float32, lower for better, and what the error of each is in proportion to.
        loss, scale = _measured(reader, queries, candidates, _ROUGH[metric], 2)
        loss[~(np.isfinite(loss) & np.isfinite(scale))] = np.nan
        loss[~there], scale[~there] = np.inf, 0
        # The k-th best of each query. What is worse by more than the error is dropped.
        edge = np.partition(loss, k - 1, axis=1)[:, k - 1 : k]
        # Two scores are compared, each of which may be off by the bound on the error of a sum in
        # float32 (Higham 2002, chapter 3). Twice as much is allowed for, to be safe.
        slack = 4 * (dim + 8) * _ROUNDING * np.fmax.reduce(scale, axis=1, keepdims=True, initial=0)
        slack = (slack * edge if metric == "l2" else slack) + dim * _TINY
        hopeful = there & ~(loss > edge + slack)
    # Those that are left, moved to the first columns of an array as narrow as possible.
    width = max(k, int(hopeful.sum(axis=1).max(initial=0)))
    order = np.argsort(~hopeful, axis=1, kind="stable")[:, :width]
    kept = np.take_along_axis(hopeful, order, 1)
    return np.asarray(np.where(kept, np.take_along_axis(candidates, order, 1), -1))


def _rough_cosine(queries: Vectors, vectors: Vectors) -> Vectors:
    squares = _squares(vectors)
    told = (squares > _TINY / _ROUNDING) & (squares < np.inf)
    loss = -_products(queries, vectors) / np.sqrt(squares)
    return np.stack([loss, np.where(told, np.float32(1), np.float32(np.nan))])


def _rough_product(queries: Vectors, vectors: Vectors) -> Vectors:
    lengths = np.sqrt(_squares(queries[:, None])) * np.sqrt(_squares(vectors))
    return np.stack([-_products(queries, vectors), lengths])


def _rough_l2(queries: Vectors, vectors: Vectors) -> Vectors:
    loss = _squares(vectors - queries[:, None])
    return np.stack([loss, np.ones_like(loss)])


# What is better where lower, and what its rounding error is in proportion to: (2, n, m) float32.
_ROUGH: dict[str, Measure] = {
    "cosine": _rough_cosine,
    "inner_product": _rough_product,
    "l2": _rough_l2,
}


def _measured(
    reader: _Vectors, queries: Vectors, candidates: Ids, measure: Measure, values: int
) -> npt.NDArray[np.float32]:
    """What `measure` says of queries and their own candidates: (values, n, m), anything for -1."""
    n, width = candidates.shape
    output = np.zeros((values, n, width), dtype=np.float32)
    some = int(candidates.max(initial=-1))  # is read in place of nothing
    if some < 0:
        return output
    at_once = max(1, _READ_BYTES // (4 * queries.shape[1]))
    rows, columns = max(1, at_once // width), min(width, at_once)
    for start in range(0, n, rows):
        for first in range(0, width, columns):
            block = slice(start, start + rows), slice(first, first + columns)
            ids = candidates[block]
            vectors = reader.vectors(np.where(ids < 0, some, ids).reshape(-1))
            own = queries[block[0]]
            output[(slice(None), *block)] = measure(own, vectors.reshape(*ids.shape, -1))
    return output
