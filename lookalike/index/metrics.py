"""What each metric means: exact scores, what is better, which vectors it takes.

Scores are computed in float64 and rounded to float32, so they do not depend on how rows were cut
into blocks, and equal vectors have equal scores.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

METRICS = ("cosine", "inner_product", "l2", "jaccard")

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
    if metric == "cosine":
        left, right = _unit(left), _unit(right)
    products = left @ right.T
    if metric == "l2":
        squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * products
        return np.asarray(np.sqrt(np.maximum(squares, 0)), dtype=np.float32)
    return np.asarray(products, dtype=np.float32)


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


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
    order = np.lexsort((ids, loss), axis=1)
    ids, loss = np.take_along_axis(ids, order, 1), np.take_along_axis(loss, order, 1)
    repeated = ids < 0
    repeated[:, 1:] |= ids[:, 1:] == ids[:, :-1]
    order = np.argsort(repeated, axis=1, kind="stable")[:, :k]
    kept = ~np.take_along_axis(repeated, order, 1)
    signed = -loss if better_is_higher(metric) else loss
    best_ids = np.full((len(ids), k), -1, dtype=np.int64)
    best = np.full((len(ids), k), worst_score(metric), dtype=np.float32)
    width = order.shape[1]
    best_ids[:, :width][kept] = np.take_along_axis(ids, order, 1)[kept]
    best[:, :width][kept] = np.take_along_axis(signed, order, 1)[kept]
    return best_ids, best


def check_vectors(vectors: npt.ArrayLike, dim: int, metric: str) -> Vectors:
    """The vectors as (n, dim) float32, contiguous.

    Raises:
        RequestError: Wrong shape, a value that is not finite, a zero vector under cosine or
            jaccard, or a negative value under jaccard. Faiss itself would count vectors that are
            not finite and silently leave them out of its lists.
    """
    array: Vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dim:
        raise RequestError(f"vectors must have shape (n, {dim}), got {array.shape}")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise RequestError(f"vector {int(np.argmin(finite))} has a value that is not finite")
    if metric in ("cosine", "jaccard"):
        nonzero = array.any(axis=1)
        if not nonzero.all():
            raise RequestError(f"vector {int(np.argmin(nonzero))} is zero, which {metric} forbids")
    if metric == "jaccard" and (array < 0).any():
        row = int(np.argmax((array < 0).any(axis=1)))
        raise RequestError(f"vector {row} has a negative value, which jaccard forbids")
    return array


def candidate_vectors(vectors: Vectors, metric: str) -> Vectors:
    """What an index holds in place of the vectors: (n, d) float32.

    Unit length for cosine; sqrt(x / sum x) for jaccard, whose inner product (the Bhattacharyya
    coefficient) ranks histograms much as their overlap does; else the vectors themselves.
    """
    if metric == "jaccard":
        wide = vectors.astype(np.float64)
        return np.asarray(np.sqrt(wide / wide.sum(axis=1, keepdims=True)), dtype=np.float32)
    if metric == "cosine":
        return np.asarray(_unit(vectors.astype(np.float64)), dtype=np.float32)
    return vectors
