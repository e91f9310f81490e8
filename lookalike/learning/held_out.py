"""What a change gains on pictures that it was not chosen by: held out by label, with an interval.

Labels are dealt into folds. Whatever is learned or chosen for one fold is learned or chosen on the
others alone, so that the gain is that for things never seen.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lookalike.distances import Vectors
from lookalike.errors import RequestError
from lookalike.learning.labelled import OTHER, Labelled, Labels, sample_by_label

FOLDS = 4
_CLASSES = 2 * FOLDS  # of two images at least: a fold of one label would have no wrong answers
_COMPARED, _QUERIES = 8000, 2000  # rows of a fold, and those of them that are asked for others
_CHUNK = 256
_RESAMPLES = 2000

_Choice = TypeVar("_Choice", bound=Hashable)
Rows = npt.NDArray[np.intp]
Gains = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fold:
    """Held-out rows.

    Attributes:
        rows: Those compared, ascending: of the labels held out, and all that are like none.
        queries: Positions among `rows` of those asked for the others of their label.
        labels: (rows,).
    """

    rows: Rows
    queries: Rows
    labels: Labels
    k: int

    def precision(self, vectors: Vectors) -> Gains:
        """Precision at k of each query (q,), by the cosine; vectors (rows, d) are those of `rows`.

        A query is left out of its own answer.
        """
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        unit = (vectors / np.maximum(norms, np.finfo(np.float32).tiny)[:, None]).astype(np.float32)
        k = min(self.k, len(unit) - 1)
        found = []
        for start in range(0, len(self.queries), _CHUNK):
            rows = self.queries[start : start + _CHUNK]
            scores = unit[rows] @ unit.T
            scores[np.arange(len(rows)), rows] = -np.inf
            top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            relevant = self.labels[top] == self.labels[rows, None]
            found.append(relevant.sum(axis=1) / self.k)
        return np.concatenate(found)


def folds_of(data: Labelled, k: int, seed: int = 0) -> list[Fold]:
    """Deal the labels into FOLDS folds.

    Raises:
        RequestError: There are too few labels, or k is below 1.
    """
    if k < 1:
        raise RequestError(f"k must be at least 1, got {k}")
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.unique(data.labels[data.labels != OTHER]))
    if len(classes) < _CLASSES:
        raise RequestError(
            f"{len(classes)} labels have two images or more, and it takes {_CLASSES} to hold some "
            "out; label more kinds of things, or learn without labels: --self"
        )
    others = np.flatnonzero(data.labels == OTHER)[:_COMPARED]
    folds = []
    for number in range(FOLDS):
        inside = np.isin(data.labels, classes[number::FOLDS])
        chosen = sample_by_label(np.where(inside, data.labels, OTHER), _COMPARED, seed)
        rows = np.union1d(np.flatnonzero(chosen), others)
        labels = data.labels[rows]
        queries = np.flatnonzero(labels != OTHER)
        if len(queries) > _QUERIES:
            queries = np.sort(rng.choice(queries, _QUERIES, replace=False))
        folds.append(Fold(rows, queries, labels, k))
    return folds


@dataclass(frozen=True)
class Gain:
    """Precision at k on labels held out, before and after.

    Attributes:
        before: Mean over all queries.
        after: The same with what was learned.
        low: The gain's interval, 95%, by resampling the labels.
        high: Its upper end.
    """

    k: int
    before: float
    after: float
    low: float
    high: float
    queries: int
    classes: int

    @property
    def helps(self) -> bool:
        """Whether there is a gain for certain."""
        return self.low > 0

    def to_json(self) -> dict[str, Any]:
        """As --json prints it."""
        return {**asdict(self), "gain": self.after - self.before, "helps": self.helps}

    def __str__(self) -> str:
        """For people."""
        gain = self.after - self.before
        return (
            f"P@{self.k} {self.before:.3f} -> {self.after:.3f}, gain {gain:+.3f} ({self.low:+.3f} "
            f"to {self.high:+.3f}; {self.queries:,} queries of {self.classes:,} labels held out)"
        )


def gain_of(
    folds: Sequence[Fold], before: Sequence[Gains], after: Sequence[Gains], seed: int = 0
) -> Gain:
    """The gain over all folds; `before` and `after` are precisions of each fold's queries.

    The queries of one label stand or fall together, so labels are resampled and not queries.
    """
    labels = np.concatenate([fold.labels[fold.queries] for fold in folds])
    first, second = np.concatenate(before), np.concatenate(after)
    classes, where = np.unique(labels, return_inverse=True)
    sums, counts = np.bincount(where, second - first), np.bincount(where)
    drawn = np.random.default_rng(seed).integers(0, len(classes), (_RESAMPLES, len(classes)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    k = folds[0].k
    return Gain(
        k,
        float(first.mean()),
        float(second.mean()),
        float(low),
        float(high),
        len(labels),
        len(classes),
    )


def best(
    choices: Sequence[_Choice], score: Callable[[_Choice], float], within: float = 0.0
) -> _Choice:
    """The first choice whose score is no more than `within` below the best one."""
    scores: Mapping[_Choice, float] = {choice: score(choice) for choice in choices}
    most = max(scores.values())
    return next(choice for choice in choices if scores[choice] >= most - within)
