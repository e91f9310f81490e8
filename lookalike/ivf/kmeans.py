"""k-means for inverted lists, seeded, in two levels where there are many.

First about sqrt(k) groups are learned, then the centroids of each group from the rows of that
group. Some iterations over all rows follow, in which a row is compared with the centroids of the
groups nearest to it. This reaches the objective of Lloyd's algorithm with a tenth of the
comparisons.
"""

from __future__ import annotations

import numpy as np

from lookalike.distances import Ids, Vectors
from lookalike.ivf.coarse import Groups, lloyd, means, nearest

_TWO_LEVELS_FROM = 256  # centroids
_FLAT_ITERATIONS = 16
_TOP_ROWS = 256  # for each group, to learn the groups from
_TOP_ITERATIONS = 10
_OWN_ITERATIONS = 6
_LAST_ITERATIONS = 8
_LAST_PROBE = 4  # groups that a row is compared with


def kmeans(rows: Vectors, k: int, seed: int) -> Vectors:
    """Centroids (k, D) float32 of rows (n, D), n >= k, by Euclidean distance.

    Centroids of a group follow each other, so that neighbouring lists have neighbouring numbers.

    Raises:
        ValueError: There are fewer rows than centroids.
    """
    if len(rows) < k:
        raise ValueError(f"k-means needs a row for every centroid: {len(rows):,} rows, k is {k:,}")
    random = np.random.default_rng(seed)
    if k < _TWO_LEVELS_FROM:
        return lloyd(rows, _draw(rows, k, random), _FLAT_ITERATIONS)
    count = round(k**0.5)
    sample = _draw(rows, _TOP_ROWS * count, random)
    centres = lloyd(sample, _draw(sample, count, random), _TOP_ITERATIONS)
    group = nearest(rows, centres)
    sizes = np.bincount(group, minlength=count)
    shares = apportion(sizes, k)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    parts = []
    for own, share in zip(members, shares.tolist(), strict=True):
        if share:
            near = rows[own]
            parts.append(lloyd(near, _draw(near, share, random), _OWN_ITERATIONS))
    centroids = np.concatenate(parts)
    group = np.repeat(np.arange(np.count_nonzero(shares)), shares[shares > 0])
    for _ in range(_LAST_ITERATIONS):
        lists = Groups(centroids, group).nearest(rows, _LAST_PROBE)
        centroids = means(rows, lists, centroids)
    return centroids


def apportion(sizes: Ids, total: int) -> Ids:
    """Share `total` out in proportion to sizes (n,), by largest remainders: (n,) int64.

    No share is above its size when total <= sum(sizes). For example, 5 shared among sizes of 6, 3
    and 1 is 3, 1.5 and 0.5 exactly; rounded down, 3, 1 and 0 leave one over, which goes to the
    first of the largest remainders: 3, 2 and 0.
    """
    exact = sizes * (total / sizes.sum())
    shares: Ids = np.floor(exact).astype(np.int64)
    left = total - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:left]] += 1
    return shares


def _draw(rows: Vectors, count: int, random: np.random.Generator) -> Vectors:
    """`count` rows at random, or all, in their order."""
    drawn: Vectors = rows[np.sort(random.permutation(len(rows))[:count])]
    return drawn
