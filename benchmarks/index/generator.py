"""As many vectors as wanted that are like real ones: neighbourhoods, resampled.

A row takes a real vector and four of its near neighbours, and mixes the five with random weights
whose sum and whose sum of squares are both 1. So it has the mean and the covariance of the place
that it comes from, at any number of rows and with no two alike: a smoothed bootstrap that keeps the
variance (Silverman and Young 1987), of random affine combinations as in ADASYN's and SMOTE's family
(Chawla et al. 2002). How many neighbours make a place is the one thing that is fitted; where real
vectors are so few that no number does, the sum of squares is, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.index.way_exact import nearest

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

MIXED = 5  # vectors that make one
MOST_NEAR = 32
BLOCK = 65_536  # rows with a random stream of their own
_CHUNK = 256  # rows made at once, so that they stay in the cache
_GROUP = 512  # real vectors per group that neighbours are sought in
_GROUPS_SEARCHED = 8
_STEP = 4096  # rows whose neighbours are sought at once
_SUBSETS = 1024
_TENTH = 10
_WIDEST = 24.0
_MOST_SPREAD = 2.5


@dataclass(frozen=True)
class Generator:
    """Real vectors and what was fitted to them.

    Attributes:
        real: (n, d) float32, rows of unit length, in random order.
        near: (n, m) int32, the near neighbours of each, nearest first.
        width: How many of them, about, make a row's place; it varies from row to row, as places do.
        spread: How far rows lie from the middle of their place, relative to the real ones.
        seed: Of all that is random.
    """

    real: Vectors
    near: npt.NDArray[np.int32]
    width: float
    spread: float = 1.0
    seed: int = 0

    def rows(self, start: int, stop: int) -> Vectors:
        """Rows (stop - start, d) float32 of unit length, the same whatever range asks for them."""
        parts = []
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first = block * BLOCK
            own = slice(max(start, first) - first, min(stop, first + BLOCK) - first)
            parts.append(self._mix(first, *self._recipe(block), own))
        return np.concatenate(parts)

    def _recipe(self, block: int) -> tuple[Rows, Vectors]:
        """For each row of a block: which real vectors it mixes, and by what weights, (BLOCK, 5)."""
        random = np.random.default_rng([self.seed, block])
        centres = (np.arange(BLOCK) + block * BLOCK) % len(self.real)
        most = self.near.shape[1]
        widths = np.random.default_rng(self.seed).uniform(-1, 1, len(self.real))
        widths = np.clip(np.rint(self.width * np.exp(widths)), MIXED - 1, most).astype(np.int64)
        subsets = _subsets(most, self.seed)
        chosen = subsets[widths[centres], random.integers(0, _SUBSETS, BLOCK)]
        others = np.take_along_axis(self.near[centres], chosen, axis=1)
        which = np.concatenate([centres[:, None], others.astype(np.int64)], axis=1)
        # uniform on the sphere where both sums are 1, on the half that leans to the row's centre
        away = random.standard_normal((BLOCK, MIXED), dtype=np.float32)
        away[:, 0] = np.abs(away[:, 0])
        away -= away.mean(axis=1, keepdims=True)
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        away *= np.float32(self.spread * np.sqrt(1 - 1 / MIXED))
        return which, 1 / np.float32(MIXED) + away

    def _mix(self, first: int, which: Rows, weights: Vectors, own: slice) -> Vectors:
        made = np.empty((own.stop - own.start, self.real.shape[1]), np.float32)
        taken = np.empty((_CHUNK, MIXED, self.real.shape[1]), np.float32)
        which, weights = which[own], weights[own, None]
        for start in range(0, len(made), _CHUNK):
            rows = slice(start, start + _CHUNK)
            out, five = made[rows, None], taken[: len(which[rows])]
            np.take(self.real, which[rows], axis=0, out=five, mode="clip")
            np.matmul(weights[rows], five, out=out)
            out /= np.sqrt(np.einsum("ijk,ijk->ij", out, out))[:, :, None]
        return made


def fit(real: Vectors, seed: int = 0) -> Generator:
    """Fit a generator to real vectors (n, d), rows of unit length, in random order.

    A tenth of them is to make as many rows as there are, and those are to be as far from their
    tenth neighbour, in the median, as the real ones are from theirs.
    """
    width, spread = fit_place(real, seed)
    return Generator(real, neighbours(real, MOST_NEAR), width, spread, seed)


def fit_place(real: Vectors, seed: int, queries: int = 500) -> tuple[float, float]:
    """The width and spread by which a tenth of `real` resembles it all."""
    queries = min(queries, len(real) // 4)
    rows = len(real) - queries
    wanted = tenth_distance(real[:rows], real[rows:])
    tenth = thinned(real[:rows])
    near = neighbours(tenth, MOST_NEAR)

    def too_near(width: float, spread: float) -> bool:
        made = Generator(tenth, near, width, spread, seed).rows(0, rows + queries)
        return tenth_distance(made[:rows], made[rows:]) < wanted

    widest = min(_WIDEST, near.shape[1])
    if too_near(widest, 1.0):
        return widest, _where(lambda spread: too_near(widest, spread), 1.0, _MOST_SPREAD)
    return _where(lambda width: too_near(width, 1.0), float(MIXED - 1), widest), 1.0


def thinned(real: Vectors) -> Vectors:
    """The tenth of the rows that a generator is tried with."""
    return real[: max(len(real) // 10, 4 * MIXED)]


def _where(below: Callable[[float], bool], low: float, high: float) -> float:
    """Where `below` ends to hold, between the two."""
    for _ in range(5):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if below(middle) else (low, middle)
    return float((low * high) ** 0.5)


def tenth_distance(base: Vectors, queries: Vectors) -> float:
    """Median over the queries of 1 - cosine to the tenth nearest row of `base`."""
    return float(np.median(1 - nearest(queries, [base], min(_TENTH, len(base)))[1][:, -1]))


def neighbours(real: Vectors, count: int) -> npt.NDArray[np.int32]:
    """Near neighbours (n, count) of each row, nearest first; of large sets nearly the nearest.

    Rows are grouped by the nearest of some of them, and sought in the nearest groups alone.
    """
    n = len(real)
    pivots = real[: max(1, n // _GROUP)]
    count, searched = min(count, n - 1), min(_GROUPS_SEARCHED, len(pivots))
    group = np.concatenate(
        [(real[i : i + BLOCK] @ pivots.T).argmax(axis=1) for i in range(0, n, BLOCK)]
    )
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(len(pivots) + 1))
    members = [order[bounds[i] : bounds[i + 1]] for i in range(len(pivots))]
    near_pivots = np.argsort(-(pivots @ pivots.T), axis=1)
    found = np.empty((n, count), np.int32)
    for own, ranked in zip(members, near_pivots, strict=True):
        there, taken = [members[i] for i in ranked[:searched]], searched
        while sum(map(len, there)) <= count:  # small groups
            there.append(members[ranked[taken]])
            taken += 1
        pool = np.concatenate(there)
        for start in range(0, len(own), _STEP):
            rows = own[start : start + _STEP]
            scores = real[rows] @ real[pool].T
            scores[rows[:, None] == pool[None, :]] = -np.inf  # itself
            best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
            rank = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
            found[rows] = pool[np.take_along_axis(best, rank, axis=1)]
    return found


def _subsets(most: int, seed: int) -> Rows:
    """(most + 1, _SUBSETS, 4): for each width, random choices of four among its first."""
    random = np.random.default_rng([seed, most])
    table = np.zeros((most + 1, _SUBSETS, MIXED - 1), np.int64)
    for width in range(MIXED - 1, most + 1):
        table[width] = random.random((_SUBSETS, width)).argsort(axis=1)[:, : MIXED - 1]
    return table
