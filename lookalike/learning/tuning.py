"""The weights of a hybrid's features that fit labelled pictures best, by trying a grid of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.learning.held_out import Gain, best, folds_of, gain_of
from lookalike.learning.labelled import Labelled
from lookalike.models.conversion import rescale

_STEPS = {2: 20, 3: 10, 4: 8}  # that a weight of 1 is dealt in, by the number of features

Weights = tuple[float, ...]


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        weights: Of each feature; their sum is 1.
        gain: On labels held out, with the weights chosen on the others.
        tried: Each choice with its precision on all labels, in the order of the grid.
    """

    weights: Weights
    gain: Gain
    tried: tuple[tuple[Weights, float], ...]


def grid(features: int) -> list[Weights]:
    """Choices of weights for that many features: all above 0, with a sum of 1."""
    steps = _STEPS.get(features, features + 3)
    return [tuple(part / steps for part in parts) for parts in _parts(steps, features)]


def _parts(steps: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (steps,)
        return
    for first in range(1, steps - parts + 2):
        for rest in _parts(steps - first, parts - 1):
            yield (first, *rest)


def tune(
    data: Labelled, dims: Sequence[int], weights: Sequence[float], metric: str, k: int = 10
) -> Tuned:
    """Try the grid, and measure what its best gains on labels that it was not chosen by.

    Args:
        data: Labelled vectors of the hybrid.
        dims: Components of each feature's block.
        weights: As they are now: of choices that are as good, the nearest to these.
        metric: Of the vectors.
        k: Of precision at k.

    Raises:
        RequestError: There are too few labels, or a single feature.
    """
    if len(dims) < 2:
        raise RequestError("there is a single feature, whose weight makes no difference")
    now = tuple(weight / sum(weights) for weight in weights)
    folds = folds_of(data, k)

    @cache
    def precision(number: int, choice: Weights) -> npt.NDArray[np.float64]:
        fold = folds[number]
        return fold.precision(rescale(data.vectors[fold.rows], dims, choice, metric))

    def mean(numbers: Sequence[int], choice: Weights) -> float:
        return float(np.mean([precision(number, choice).mean() for number in numbers]))

    def distance(choice: Weights) -> float:
        return float(np.abs(np.subtract(choice, now)).sum())

    everything = range(len(folds))
    choices = sorted({*grid(len(dims)), now}, key=distance)
    before, after = [], []
    for number in everything:
        others = [one for one in everything if one != number]
        chosen = best(choices, lambda one, others=others: mean(others, one))  # type: ignore[misc]
        before.append(precision(number, now))
        after.append(precision(number, chosen))
    found = best(choices, lambda one: mean(everything, one))
    tried = tuple((choice, mean(everything, choice)) for choice in sorted(choices))
    return Tuned(found, gain_of(folds, before, after), tried)
