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

import faiss
import numpy as np

from benchmarks.index.way_exact import nearest
from lookalike.distances import Ids, Vectors

MIXED = 5  # vectors that make one
MOST_NEAR = 32
BLOCK = 65_536  # rows with a random stream of their own
_CHUNK = 256  # rows made at once, so that they stay in the cache
_LIST = 512  # real vectors per list that neighbours are sought in
_PROBED = 8
_TENTH = 10
_QUERIES = 1000  # rows whose tenth neighbours are fitted
_WIDEST = 24.0
_MOST_SPREAD = 2.5


@dataclass(frozen=True)
class Generator:
    """Real vectors and what was fitted to them; or real vectors alone, which are given as they are.

    Attributes:
        real: (n, d) float32, rows of unit length, in random order.
        near: (n, m) int64, the near neighbours of each, nearest first.
        width: How many of them, about, make a row's place; it varies from row to row, as places do.
        spread: How far rows lie from the middle of their place, relative to the real ones.
        seed: Of all that is random.
        tenths: Median of 1 - cosine to the tenth neighbour, among the real rows and among as many
            that a tenth of them makes.
    """

    real: Vectors
    near: Ids | None = None
    width: float = 0.0
    spread: float = 1.0
    seed: int = 0
    tenths: tuple[float, float] = (0.0, 0.0)

    def rows(self, start: int, stop: int) -> Vectors:
        """Ids (stop - start, d) float32 of unit length, the same whatever range asks for them."""
        if self.near is None:
            return np.asarray(self.real[start:stop])
        parts = []
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first = block * BLOCK
            own = slice(max(start, first) - first, min(stop, first + BLOCK) - first)
            parts.append(self._mix(*self._recipe(block, self.near), own))
        return np.concatenate(parts)

    def _recipe(self, block: int, near: Ids) -> tuple[Ids, Vectors]:
        """For each row of a block: which real vectors it mixes, and by what weights, (BLOCK, 5)."""
        random = np.random.default_rng([self.seed, block])
        centres = (np.arange(BLOCK) + block * BLOCK) % len(self.real)
        most = near.shape[1]
        widths = np.random.default_rng(self.seed).uniform(-1, 1, len(self.real))
        widths = np.clip(np.rint(self.width * np.exp(widths)), MIXED - 1, most)
        order = random.random((BLOCK, most), dtype=np.float32)
        order[np.arange(most) >= widths[centres, None]] = 2  # after all that are in the place
        chosen = order.argpartition(MIXED - 2, axis=1)[:, : MIXED - 1]
        others = np.take_along_axis(near[centres], chosen, axis=1)
        which = np.concatenate([centres[:, None], others], axis=1)
        # uniform on the sphere where both sums are 1, on the half that leans to the row's centre
        away = random.standard_normal((BLOCK, MIXED), dtype=np.float32)
        away[:, 0] = np.abs(away[:, 0])
        away -= away.mean(axis=1, keepdims=True)
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        away *= np.float32(self.spread * np.sqrt(1 - 1 / MIXED))
        return which, 1 / np.float32(MIXED) + away

    def _mix(self, which: Ids, weights: Vectors, own: slice) -> Vectors:
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
    rows = len(real) - min(_QUERIES, len(real) // 4)
    wanted = tenth_distance(real[:rows], real[rows:])
    tenth = thinned(real[:rows])
    near = neighbours(tenth, MOST_NEAR)

    def grown(width: float, spread: float) -> float:
        made = Generator(tenth, near, width, spread, seed).rows(0, len(real))
        return tenth_distance(made[:rows], made[rows:])

    width, spread = min(_WIDEST, near.shape[1]), 1.0
    if grown(width, spread) < wanted:
        spread = _where(lambda spread: grown(width, spread) < wanted, 1.0, _MOST_SPREAD)
    else:
        width = _where(lambda width: grown(width, 1.0) < wanted, float(MIXED - 1), width)
    tenths = wanted, grown(width, spread)
    return Generator(real, neighbours(real, MOST_NEAR), width, spread, seed, tenths)


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


def neighbours(real: Vectors, count: int) -> Ids:
    """Near neighbours (n, count) of each row, nearest first; of large sets nearly the nearest.

    Ids are put into the lists of some of them, and sought in the nearest lists alone.
    """
    n, dim = real.shape
    count, nlist = min(count, n - 1), max(1, n // _LIST)
    coarse = faiss.IndexFlatIP(dim)
    coarse.add(real[:nlist])
    index = faiss.IndexIVFFlat(coarse, dim, nlist, faiss.METRIC_INNER_PRODUCT)
    index.add(real)
    found = np.full((n, count + 1), -1, np.int64)
    index.nprobe = min(_PROBED, nlist)
    while len(few := np.flatnonzero(found[:, -1] < 0)):  # at first all; then those of small lists
        found[few] = index.search(real[few], count + 1)[1]
        index.nprobe *= 2
    itself = found == np.arange(n)[:, None]
    itself[~itself.any(axis=1), -1] = True  # of many that are alike
    others: Ids = found[~itself].reshape(n, count)
    return others
