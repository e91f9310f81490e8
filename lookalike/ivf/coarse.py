"""Centroids of inverted lists: learning them by k-means, and which one a vector is nearest to.

With few lists, a row is multiplied with every centroid. With many, the centroids are put into
about sqrt(nlist) groups, and a row is compared only with the centroids of the groups nearest to
it; all rows that share a group are compared at once, by one matrix product.

k-means does the same: about sqrt(k) groups are learned, then the centroids of each from its rows.
Some iterations over all rows follow, in which a row is compared with the groups nearest to it. So
the objective of Lloyd's algorithm is reached with a tenth of the comparisons.

Faiss's own products run at a third of the speed of numpy's. Means do not depend on the number of
threads: products are cut in the same blocks always, and sums go block by block in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from lookalike.distances import Ids, Vectors
from lookalike.products import inner_products

SCORES = 1 << 22  # products in memory at a time, 16 MB: smaller blocks make slower products

_SUMMED = 16_384  # rows at a time, in means
_COMPARED = 8_192  # rows with the groups at once
_TWO_LEVELS_FROM = 256  # centroids, in k-means
_FLAT_ITERATIONS = 16
_TOP_ROWS = 256  # for each group, to learn the groups from
_TOP_ITERATIONS = 10
_OWN_ITERATIONS = 6
_LAST_ITERATIONS = 8
_LAST_PROBE = 4  # groups that a row is compared with


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
    for start in range(0, len(rows), _SUMMED):
        own = lists[start : start + _SUMMED]
        order = np.argsort(own, kind="stable")
        there, starts = np.unique(own[order], return_index=True)
        sums[there] += np.add.reduceat(rows[start : start + _SUMMED][order], starts, axis=0)
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


FLAT_BELOW = 4096  # lists; from there on two levels assign faster
SEARCH_FLAT_BELOW = 32_768  # and from there on they search faster

_ASSIGN_PROBE = 8  # groups; find the nearest list of more than 99% of rows
_SEARCH_PROBE = 16  # groups at least, and one more for so many lists asked for:
_SEARCH_PER_PROBE = 8
_ITERATIONS = 8
_PER_GROUP = 64  # centroids to learn a group from


class Coarse:
    """Centroids (nlist, D) float32 and the search among them; threads may share one."""

    def __init__(self, centroids: Vectors) -> None:
        self.centroids = centroids
        self._bias = half_squares(centroids)

    @cached_property
    def _groups(self) -> Groups:
        return Groups(self.centroids, group(self.centroids))

    def assign(self, rows: Vectors) -> Ids:
        """The nearest list, by Euclidean distance, of rows (n, D): (n,) int64."""
        if len(self.centroids) < FLAT_BELOW:
            return nearest(rows, self.centroids, self._bias)
        return self._groups.nearest(rows, _ASSIGN_PROBE)

    def search(self, rows: Vectors, nprobe: int, metric: str) -> tuple[Vectors, Ids]:
        """The lists to search for queries (n, D), best first.

        Lists are ranked by distance, under inner_product by the product. For queries of unit
        length, too, distance finds more neighbours than the product: centroids are means and so
        shorter the wider their list is.

        Returns:
            Scores (n, nprobe) float32, squared distances for l2, else inner products with the
            centroids; and numbers of lists (n, nprobe) int64. nprobe is at most nlist.
        """
        nlist = len(self.centroids)
        nprobe = min(nprobe, nlist)
        by_distance = metric != "inner_product"
        two_levels = by_distance and nlist >= SEARCH_FLAT_BELOW and nprobe <= nlist // 16
        products = np.empty((len(rows), nprobe), dtype=np.float32)
        lists = np.empty((len(rows), nprobe), dtype=np.int64)
        step = max(64, SCORES // nlist)
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            if two_levels:
                products[block], lists[block] = self._groups.search(rows[block], nprobe)
            else:
                products[block], lists[block] = self._flat(rows[block], nprobe, by_distance)
        if metric == "l2":
            squares = 2 * (half_squares(rows)[:, None] + self._bias[lists] - products)
            return np.maximum(squares, 0), lists
        return products, lists

    def _flat(self, rows: Vectors, nprobe: int, by_distance: bool) -> tuple[Vectors, Ids]:
        scores = inner_products(rows, self.centroids)
        if by_distance:
            scores -= self._bias
        best = largest(scores, nprobe)
        products = np.take_along_axis(scores, best, axis=1)
        return products + self._bias[best] if by_distance else products, best


class Groups:
    """Centroids in groups of neighbours."""

    def __init__(self, centroids: Vectors, group: Ids) -> None:
        """Centroids (k, D) and the number of each one's group (k,), which hold one or more."""
        self._lists = np.argsort(group, kind="stable")  # of each member
        self._members = centroids[self._lists]
        self._bias = half_squares(self._members)
        self._starts = np.searchsorted(group[self._lists], np.arange(int(group.max()) + 2))
        self._sizes = np.diff(self._starts)
        sums = np.add.reduceat(self._members.astype(np.float64), self._starts[:-1], axis=0)
        self._centres: Vectors = (sums / self._sizes[:, None]).astype(np.float32)
        self._centre_bias = half_squares(self._centres)

    def nearest(self, rows: Vectors, probe: int) -> Ids:
        """The nearest centroid of rows (n, D) in the `probe` groups nearest to each: (n,) int64."""
        output = np.empty(len(rows), dtype=np.int64)
        for start in range(0, len(rows), _COMPARED):
            block = rows[start : start + _COMPARED]
            best = np.full(len(block), -np.inf, dtype=np.float32)
            own = np.zeros(len(block), dtype=np.int64)
            for first, visitors, _, scores in self._compare(block, self._near(block, probe)):
                position = scores.argmax(axis=1)
                value = scores[np.arange(len(scores)), position]
                better = value > best[visitors]
                best[visitors[better]] = value[better]
                own[visitors[better]] = first + position[better]
            output[start : start + _COMPARED] = self._lists[own]
        return output

    def search(self, rows: Vectors, nprobe: int) -> tuple[Vectors, Ids]:
        """Products (n, nprobe) and numbers of about the nprobe nearest centroids, nearest first.

        Some 99.5% of them are the nearest ones; those missed are the last in order.
        """
        near = self._near(rows, _SEARCH_PROBE + nprobe // _SEARCH_PER_PROBE)
        ends = np.cumsum(self._sizes[near], axis=1)  # of each group among a row's scores
        scores = np.full((len(rows), int(ends[:, -1].max())), -np.inf, dtype=np.float32)
        for _, visitors, rank, found in self._compare(rows, near):
            columns = (ends[visitors, rank] - found.shape[1])[:, None] + np.arange(found.shape[1])
            scores[visitors[:, None], columns] = found
        best = largest(scores, nprobe)
        rank = (best[:, :, None] >= ends[:, None, :]).sum(axis=2)
        from_end = best - np.take_along_axis(ends, rank, axis=1)
        chosen = self._starts[np.take_along_axis(near, rank, axis=1) + 1] + from_end
        products = np.take_along_axis(scores, best, axis=1) + self._bias[chosen]
        return products, self._lists[chosen]

    def _near(self, rows: Vectors, probe: int) -> Ids:
        """The `probe` nearest groups of each row, (n, probe), in no order."""
        count = len(self._centres)
        probe = min(probe, count)
        scores = inner_products(rows, self._centres)
        scores -= self._centre_bias
        return np.argpartition(scores, count - probe, axis=1)[:, count - probe :]

    def _compare(self, rows: Vectors, near: Ids) -> Iterator[tuple[int, Ids, Ids, Vectors]]:
        """By group: its first member, the rows near it, as which of theirs, and their scores."""
        flat = near.ravel()
        order = np.argsort(flat, kind="stable")
        starts = np.searchsorted(flat[order], np.arange(len(self._sizes) + 1))
        visitors, rank = np.divmod(order, near.shape[1])
        for one in np.flatnonzero(np.diff(starts)).tolist():
            first, last = self._starts[one], self._starts[one + 1]
            there = slice(starts[one], starts[one + 1])
            scores = inner_products(rows[visitors[there]], self._members[first:last])
            scores -= self._bias[first:last]
            yield int(first), visitors[there], rank[there], scores


def group(centroids: Vectors) -> Ids:
    """About sqrt(k) groups of centroids (k, D), by k-means among them: (k,) int64, none empty."""
    count = max(1, round(len(centroids) ** 0.5))
    sample = centroids[:: max(1, len(centroids) // (_PER_GROUP * count))]
    start = sample[np.linspace(0, len(sample) - 1, count).astype(np.intp)]
    found = nearest(centroids, lloyd(sample, start, _ITERATIONS))
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def largest(scores: Vectors, count: int) -> Ids:
    """Positions (n, count) of the largest scores of each row (n, k), largest first."""
    width = scores.shape[1]
    if count < width:
        best = np.argpartition(scores, width - count, axis=1)[:, width - count :]
    else:
        best = np.broadcast_to(np.arange(width), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.asarray(np.take_along_axis(best, order, axis=1), dtype=np.int64)


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
