"""A projection that tells the kinds of things apart: regularised linear discriminant analysis.

Vectors are centred and the spread within a label is evened out (within-class covariance
normalisation, Hatch et al. 2006); what is left is rotated to its principal axes, of which as many
are kept as precision on held-out labels asks for. The spread is regularised block by block: the
features of a hybrid differ in size and in number of components, and one bound would leave the
smaller ones alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lookalike.distances import Vectors
from lookalike.errors import RequestError
from lookalike.learning.held_out import FOLDS, Fold, Gain, best, folds_of, gain_of
from lookalike.learning.labelled import OTHER, Labelled, Labels
from lookalike.models.projection import project

STRENGTHS = (10.0, 3.0, 1.0, 0.3)  # of the regularisation, the most cautious first
COMPONENTS = (64, 128, 256, 512)  # beside all
FITS = FOLDS + 1  # of projections: without each fold, and to all
_LOSS = 0.002  # of precision, that fewer components may cost
_CHUNK = 4096

Array = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Adapted:
    """What was learned.

    Attributes:
        matrix: (d + 1, components) float32; see `lookalike.models.projection`.
        strength: Of the regularisation, relative to the mean spread within a label.
        components: That come out.
        gain: On labels held out: learned on the others, by the strength and the size that do best
            on these.
        images: That it was learned on.
    """

    matrix: Matrix
    strength: float
    components: int
    gain: Gain
    images: int
    classes: int


@dataclass(frozen=True)
class Moments:
    """Sums over rows of whole labels; those of two sets of labels add up.

    Attributes:
        rows: How many.
        total: (d,) of the vectors.
        squares: (d, d) of their outer products.
        within: (d, d) of the outer products of their differences from their label's mean.
    """

    rows: int
    total: Array
    squares: Array
    within: Array

    def __add__(self, other: Moments) -> Moments:
        """Of both."""
        return Moments(
            self.rows + other.rows,
            self.total + other.total,
            self.squares + other.squares,
            self.within + other.within,
        )


def moments(vectors: Vectors, labels: Labels) -> Moments:
    """Sums over (n, d) vectors with labels (n,); those labelled OTHER do not count."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] != OTHER]
    dim = vectors.shape[1]
    total, squares, within = np.zeros(dim), np.zeros((dim, dim)), np.zeros((dim, dim))
    classes, where = np.unique(labels[order], return_inverse=True)
    sums = np.zeros((len(classes), dim))
    for start in range(0, len(order), _CHUNK):
        some = slice(start, start + _CHUNK)
        np.add.at(sums, where[some], vectors[order[some]])
    means = (sums / np.bincount(where)[:, None]).astype(np.float32)
    for start in range(0, len(order), _CHUNK):
        some = slice(start, start + _CHUNK)
        block = vectors[order[some]]
        apart = block - means[where[some]]
        total += block.sum(axis=0, dtype=np.float64)
        squares += block.T @ block
        within += apart.T @ apart
    return Moments(len(order), total, squares, within)


class Solver:
    """Projections out of moments, by strength and number of components."""

    def __init__(self, sums: Moments, dims: Sequence[int]) -> None:
        """Take apart the spread within labels; `dims` are the components of each block.

        Raises:
            RequestError: All images of a label have the same vector.
        """
        self._mean = sums.total / sums.rows
        spread = sums.within / sums.rows
        self._all = sums.squares / sums.rows - np.outer(self._mean, self._mean)
        variance = np.diag(spread)
        blocks = np.split(variance, np.cumsum(dims)[:-1])
        sizes = np.concatenate([np.full(len(block), block.mean()) for block in blocks])
        if not variance.sum() > 1e-12:
            raise RequestError(
                "the images of each label have one and the same vector; there is nothing to learn "
                "from them"
            )
        sizes = np.maximum(sizes, 1e-6 * sizes.max())  # of a block that says nothing
        self._scale = sizes**-0.5
        values, self._axes = _axes(spread * np.outer(self._scale, self._scale))
        self._values = np.maximum(values, 0)
        self._turned: dict[float, Array] = {}

    def matrix(self, strength: float, components: int) -> Matrix:
        """(d + 1, components) float32."""
        whitener = (self._scale[:, None] * self._axes) * (self._values + strength) ** -0.5
        found = whitener
        if components < whitener.shape[1]:  # else how it is turned makes no difference
            if strength not in self._turned:
                _, axes = _axes(whitener.T @ self._all @ whitener)
                self._turned[strength] = whitener @ axes[:, ::-1]
            found = self._turned[strength][:, :components]
        # Rounding must not decide: the sign of an axis is that of its largest component.
        largest = np.abs(found).argmax(axis=0)
        found = found * np.sign(found[largest, np.arange(found.shape[1])])
        found = found / np.sqrt((found**2).sum(axis=0).max())
        return np.vstack([found, -self._mean @ found]).astype(np.float32)


def _axes(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix.

    In single precision, in half the time: regularisation leaves nothing that it could not tell.
    """
    values, axes = np.linalg.eigh(matrix.astype(np.float32))
    return values.astype(np.float64), axes.astype(np.float64)


def adapt(
    data: Labelled,
    dims: Sequence[int],
    k: int = 10,
    components: int | None = None,
    tell: Callable[[], None] = lambda: None,
) -> Adapted:
    """Learn a projection, and measure what it gains on labels that it did not see.

    Args:
        data: What to learn from.
        dims: Components of each block of the vectors.
        k: Of precision at k.
        components: That shall come out, from 1 to all; None for as few as cost nothing.
        tell: Called FITS times, whenever a projection was fitted to the images of some folds.

    Raises:
        RequestError: There are too few labels, or nothing to learn from them.
    """
    dim = data.vectors.shape[1]
    sizes = [components] if components else [*(one for one in COMPONENTS if one < dim), dim]
    search = _Search(data, dims, folds_of(data, k), sizes, tell)
    everything = frozenset(range(len(search.folds)))
    before = [fold.precision(data.vectors[fold.rows]) for fold in search.folds]
    after = []
    for number in sorted(everything):
        chosen = search.choose(everything - {number})
        after.append(search.precision(number, *chosen))
    strength, size = search.choose(everything)
    labels = data.labels[data.labels != OTHER]
    return Adapted(
        search.solver(everything).matrix(strength, size),
        strength,
        size,
        gain_of(search.folds, before, after),
        len(labels),
        data.classes,
    )


class _Search:
    """Learns on all folds but one and tries that; what is tried twice is done once."""

    def __init__(
        self,
        data: Labelled,
        dims: Sequence[int],
        folds: Sequence[Fold],
        sizes: Sequence[int],
        tell: Callable[[], None],
    ) -> None:
        self.folds, self._tell = folds, tell
        self._data, self._dims, self._sizes = data, dims, sizes
        inside = [np.isin(data.labels, fold.labels[fold.labels != OTHER]) for fold in folds]
        self._sums = [moments(data.vectors[rows], data.labels[rows]) for rows in inside]
        self.solver = lru_cache(maxsize=None)(self._solver)
        self._score = lru_cache(maxsize=None)(self._mean_precision)

    def _solver(self, of: frozenset[int]) -> Solver:
        first, *rest = sorted(of)
        sums = self._sums[first]
        for number in rest:
            sums = sums + self._sums[number]
        solver = Solver(sums, self._dims)
        self._tell()
        return solver

    def precision(self, on: int, strength: float, size: int) -> npt.NDArray[np.float64]:
        """Of each query of a fold, by what was learned on the others."""
        fold, others = self.folds[on], frozenset(range(len(self.folds))) - {on}
        matrix = self.solver(others).matrix(strength, size)
        return fold.precision(project(matrix, self._data.vectors[fold.rows]))

    def _mean_precision(self, on: int, strength: float, size: int) -> float:
        return float(self.precision(on, strength, size).mean())

    def choose(self, folds: frozenset[int]) -> tuple[float, int]:
        """Strength, then number of components, by precision on these folds."""

        def mean(strength: float, size: int) -> float:
            return float(np.mean([self._score(one, strength, size) for one in folds]))

        most = max(self._sizes)
        strength = best(STRENGTHS, lambda one: mean(one, most))
        return strength, best(self._sizes, lambda one: mean(strength, one), _LOSS)
