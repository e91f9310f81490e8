"""Lloyd's k-means and its parts, by matrix products of numpy.

Faiss's own products run at a third of the speed of numpy's. Nothing here depends on the number of
threads: products are cut in the same blocks always, and sums go block by block in float64.
"""

from __future__ import annotations

import numpy as np

from lookalike.metrics import Ids, Vectors

SCORES = 1 << 22  # products in memory at a time, 16 MB: smaller blocks make slower products

_BLOCK = 16_384  # rows summed at a time


def half_squares(rows: Vectors) -> Vectors:
    """Half the squared length of each row, (n,) float32: x.c - |c|^2/2 ranks c by distance."""
    return np.asarray(0.5 * np.einsum("ij,ij->i", rows, rows), dtype=np.float32)


def nearest(rows: Vectors, centroids: Vectors, bias: Vectors | None = None) -> Ids:
    """The nearest centroid, by Euclidean distance, of rows (n, D): (n,) int64; ties to the first.

    Args:
        rows: (n, D) float32.
        centroids: (k, D) float32.
        bias: Their `half_squares`, where they are known.
    """
    if bias is None:
        bias = half_squares(centroids)
    output = np.empty(len(rows), dtype=np.int64)
    step = max(64, SCORES // len(centroids))
    for start in range(0, len(rows), step):
        scores = rows[start : start + step] @ centroids.T
        scores -= bias
        output[start : start + step] = scores.argmax(axis=1)
    return output


def lloyd(rows: Vectors, centroids: Vectors, iterations: int) -> Vectors:
    """Improve centroids (k, D): each becomes the mean of the rows nearest to it (Lloyd 1982)."""
    for _ in range(iterations):
        centroids = means(rows, nearest(rows, centroids), centroids)
    return centroids


def means(rows: Vectors, lists: Ids, centroids: Vectors) -> Vectors:
    """Means (k, D) float32 of the rows (n, D) in each list (n,).

    An empty list is given half of a large one, as in Faiss: the mean of the large list is moved a
    little to one side, the same mean a little to the other side becomes that of the empty list, and
    the next assignment divides the rows between them.
    """
    sums = np.zeros(centroids.shape, dtype=np.float64)
    for start in range(0, len(rows), _BLOCK):
        own = lists[start : start + _BLOCK]
        order = np.argsort(own, kind="stable")
        there, starts = np.unique(own[order], return_index=True)
        sums[there] += np.add.reduceat(rows[start : start + _BLOCK][order], starts, axis=0)
    counts = np.bincount(lists, minlength=len(centroids))
    result = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    empty = np.flatnonzero(counts == 0)
    large = np.argsort(-counts, kind="stable")[: len(empty)]
    large = large[counts[large] > 1]
    empty, kept = empty[: len(large)], empty[len(large) :]
    side = np.where(np.arange(rows.shape[1]) % 2, 1, -1).astype(np.float32) / 1024
    result[empty] = result[large] * (1 + side)
    result[large] *= 1 - side
    result[kept] = centroids[kept]
    return result
