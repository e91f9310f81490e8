"""What each metric means: exact scores, what is better, which vectors it takes.

Scores are computed in float64 and rounded to float32, so they do not depend on how rows were cut
into blocks, and equal vectors have equal scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.products import inner_products

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

METRICS = ("cosine", "inner_product", "l2", "jaccard")

LONGEST = 1e15
"""Length of a vector that l2 and inner_product take: float32 holds the squares up to some 1e38, and
training adds up millions of them."""

_PAIRS_AT_ONCE = 4_000_000  # components in memory at a time for jaccard


def better_is_higher(metric: str) -> bool:
    """Whether a larger score is a closer neighbour: true of all metrics but l2."""
    return metric != "l2"


def worst_score(metric: str) -> float:
    """The score of nothing, an infinity."""
    return -np.inf if better_is_higher(metric) else np.inf


def score(queries: npt.ArrayLike, vectors: npt.ArrayLike, metric: str) -> Scores:
    """Exact scores (q, n) float32 of queries (q, d) and vectors (n, d).

    cosine and inner_product: as named. jaccard: sum of minima over sum of maxima, of non-negative
    components. l2: the Euclidean distance, for which lower is better. A zero vector scores 0 under
    cosine, and so do two zero vectors under jaccard.
    """
    left, right = np.asarray(queries, np.float64), np.asarray(vectors, np.float64)
    if metric == "jaccard":
        return _jaccard(left, right)
    if metric == "l2":
        return np.array([_distances(query, right) for query in left]).reshape(len(left), -1)
    squares = (_wide_squares(left)[:, None], _wide_squares(right)[None, :])
    return _from_products(left @ right.T, *squares, metric)


def score_pairs(
    queries: Vectors,
    vectors: Vectors,
    chosen: npt.NDArray[np.intp],
    rows: npt.NDArray[np.intp],
    metric: str,
) -> Scores:
    """Exact scores (m,) of the pairs queries[chosen[i]], vectors[rows[i]]; see `score`.

    Args:
        queries: (q, d) float32.
        vectors: (n, d) float32.
        chosen: (m,), ascending.
        rows: (m,).
        metric: One of METRICS.
    """
    wide = queries.astype(np.float64)
    counts = np.bincount(chosen, minlength=len(queries))
    ends = np.cumsum(counts)
    slices = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
    if metric in ("jaccard", "l2"):
        parts = [
            score(wide[i : i + 1], vectors[rows[one]], metric)[0] for i, one in enumerate(slices)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
    products = np.empty(len(rows), dtype=np.float64)
    for query, one in zip(wide, slices, strict=True):
        if one.stop > one.start:
            own = vectors[rows[one]].astype(np.float64)
            products[one] = inner_products(query[None], own)[0]
    distinct, which = np.unique(rows, return_inverse=True)
    squares = _wide_squares(vectors[distinct])[which]
    return _from_products(products, _wide_squares(wide)[chosen], squares, metric)


def _wide_squares(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    wide = vectors.astype(np.float64, copy=False)
    return np.asarray(np.einsum("ij,ij->i", wide, wide))


def _from_products(
    products: npt.NDArray[np.float64],
    left: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
    metric: str,
) -> Scores:
    """Cosine or inner_product from inner products and squared lengths, which broadcast."""
    if metric == "cosine":
        lengths = np.sqrt(left) * np.sqrt(right)
        products = products / np.where(lengths > 0, lengths, 1)
    return np.asarray(products, dtype=np.float32)


def _distances(query: npt.NDArray[np.float64], vectors: npt.NDArray[np.float64]) -> Scores:
    """By differences: from products, the distance of equal vectors would be noise."""
    return np.asarray(np.sqrt(_wide_squares(vectors - query)), dtype=np.float32)


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1))


def _jaccard(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> Scores:
    # min = (a + b - |a - b|) / 2 and max = (a + b + |a - b|) / 2, so one difference is enough.
    output = np.zeros((len(left), len(right)), dtype=np.float32)
    step = max(1, _PAIRS_AT_ONCE // max(1, right.shape[1]))
    for row, query in enumerate(left):
        for start in range(0, len(right), step):
            block = right[start : start + step]
            total = query.sum() + block.sum(axis=1)
            apart = np.abs(block - query).sum(axis=1)
            above = total + apart
            output[row, start : start + step] = (total - apart) / np.where(above > 0, above, 1)
    return output


def top_k(ids: Ids, scores: Scores, k: int, metric: str) -> tuple[Ids, Scores]:
    """The best k distinct ids of each row, best first, ties by id.

    Args:
        ids: (q, n) int64; -1 is nothing.
        scores: (q, n) float32; the same id has the same score.
        k: How many.
        metric: Decides what is best.

    Returns:
        ids (q, k) padded with -1 and scores (q, k) padded with the worst score, an infinity.
    """
    # Ascending order of `loss` is best first.
    loss = np.where(ids < 0, np.inf, -scores if better_is_higher(metric) else scores)
    order = np.argsort(loss, axis=1)
    ids, loss = np.take_along_axis(ids, order, 1), np.take_along_axis(loss, order, 1)
    tied = (loss[:, 1:] == loss[:, :-1]) & (ids[:, 1:] >= 0)  # equal ids are among these
    rows = np.flatnonzero(tied.any(axis=1))
    if len(rows):
        ids[rows], loss[rows] = _distinct(ids[rows], loss[rows])
    width = min(k, ids.shape[1])
    signed = -loss if better_is_higher(metric) else loss
    best_ids = np.full((len(ids), k), -1, dtype=np.int64)
    best = np.full((len(ids), k), worst_score(metric), dtype=np.float32)
    best_ids[:, :width] = ids[:, :width]
    best[:, :width] = signed[:, :width]
    return best_ids, best


def _distinct(ids: Ids, loss: Scores) -> tuple[Ids, Scores]:
    """Rows in order of (loss, id), of each id once, then nothing (-1, infinity)."""
    order = np.lexsort((ids, loss), axis=1)
    ids, loss = np.take_along_axis(ids, order, 1), np.take_along_axis(loss, order, 1)
    nothing = ids < 0
    nothing[:, 1:] |= ids[:, 1:] == ids[:, :-1]
    ids, loss = np.where(nothing, -1, ids), np.where(nothing, np.inf, loss)
    order = np.argsort(nothing, axis=1, kind="stable")
    return np.take_along_axis(ids, order, 1), np.take_along_axis(loss, order, 1)


def check_vectors(vectors: npt.ArrayLike, dim: int, metric: str) -> Vectors:
    """The vectors as (n, dim) float32, contiguous.

    Raises:
        RequestError: Wrong shape, a value that is not finite, a zero vector under cosine or
            jaccard, a negative value under jaccard, or a vector longer than LONGEST under l2 or
            inner_product. Faiss itself would count vectors that are not finite and silently leave
            them out of its lists.
    """
    array: Vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dim:
        raise RequestError(f"vectors must have shape (n, {dim}), got {array.shape}")
    # Rows whose squared length is an ordinary number are finite and not zero: one pass for most.
    squares = squared_lengths(array)
    for row in np.flatnonzero(~are_ordinary(squares)).tolist():
        if not np.isfinite(array[row]).all():
            raise RequestError(f"vector {row} has a value that is not finite")
        if metric in ("cosine", "jaccard") and not array[row].any():
            raise RequestError(f"vector {row} is zero, which {metric} forbids")
        if too_long(array[row : row + 1], metric).any():
            raise RequestError(f"vector {row} is too long: {about_length(array[row], metric)}")
    if metric == "jaccard" and (array < 0).any():
        row = int(np.argmax((array < 0).any(axis=1)))
        raise RequestError(f"vector {row} has a negative value, which jaccard forbids")
    return array


def too_long(vectors: Vectors, metric: str) -> npt.NDArray[np.bool_]:
    """Which vectors (n, d) float32 have squares that float32 does not hold, where they matter.

    Under cosine and jaccard none has: there the length, or the sum, is divided out in float64.
    """
    if metric in ("cosine", "jaccard"):
        return np.zeros(len(vectors), dtype=bool)
    return np.asarray(~(squared_lengths(vectors) <= np.float32(LONGEST) ** 2))


def about_length(vector: npt.NDArray[Any], metric: str) -> str:
    """What is wrong with a vector (d,) that is too long, and what to do."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return (
        f"its length is {length:.4g}, {metric} takes at most {LONGEST:g}, beyond which its squares "
        "do not fit into float32; divide all vectors by one number, or use the metric cosine"
    )


def candidate_vectors(vectors: Vectors, metric: str) -> Vectors:
    """What an index holds in place of the vectors: (n, d) float32.

    Unit length for cosine; sqrt(x / sum x) for jaccard, whose inner product (the Bhattacharyya
    coefficient) ranks histograms much as their overlap does; else the vectors themselves.
    """
    if metric == "jaccard":
        wide = vectors.astype(np.float64)
        return np.asarray(np.sqrt(wide / wide.sum(axis=1, keepdims=True)), dtype=np.float32)
    if metric == "cosine":
        vectors = np.asarray(vectors, dtype=np.float32)
        squares = squared_lengths(vectors)
        ordinary = are_ordinary(squares)
        units = vectors * (1 / np.sqrt(np.where(ordinary, squares, 1)))[:, None]
        if not ordinary.all():
            units[~ordinary] = _unit(vectors[~ordinary].astype(np.float64))
        return np.asarray(units, dtype=np.float32)
    return vectors


def squared_lengths(vectors: Vectors) -> Scores:
    """Squared lengths (n,) float32; see `are_ordinary`."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.asarray(np.einsum("ij,ij->i", vectors, vectors), dtype=np.float32)


def are_ordinary(squares: Scores) -> npt.NDArray[np.bool_]:
    """Whether squared lengths in float32 neither overflowed nor lost digits to underflow."""
    return np.asarray((squares > 1e-20) & (squares < 1e30))
