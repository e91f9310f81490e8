"""Grids of 8 bits whose steps are powers of two: what networks in whole numbers calculate on.

`photo` says why the steps are powers of two, and why biases lie half-way between two sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

POINTS = 256
_SIGNED = -128  # lowest point of a grid for numbers of both signs
_FINEST = 2.0**-40
_EXACT_BITS = 22  # of a bias, in steps of the sums it is added to: float32 has 24
_NARROWER = 3  # halvings of the range that are tried, for the sake of what is not rare

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """The points `step * (low + i)` for i from 0 to 255.

    Attributes:
        step: A power of two.
        low: Number of the lowest point, from -128 to 0.
    """

    step: float
    low: int

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest point."""
        return self.step * self.low, self.step * (self.low + POINTS - 1)

    def rounded(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The nearest points, of two the even one; what lies outside goes to the ends."""
        highest = self.low + POINTS - 1
        found: npt.NDArray[Any] = np.clip(np.rint(values / self.step), self.low, highest)
        return found * self.step


def power_of_two(least: float) -> float:
    """The smallest power of two that is no less."""
    return float(2.0 ** math.ceil(math.log2(max(least, _FINEST))))


def best_grid(lowest: float, highest: float, sample: npt.NDArray[Any]) -> Grid:
    """The grid with the least squared error.

    Args:
        lowest: Of all numbers.
        highest: Of all numbers.
        sample: (n,) some of them.
    """
    widest = power_of_two(max(highest, -lowest) / (POINTS // 2 - 1))
    grids = []
    for halvings in range(_NARROWER + 2):  # one more where all are positive
        step = widest / 2**halvings
        # Such as behind a swish, numbers may reach far up and little down.
        down = min(max(math.floor(lowest / step), _SIGNED), 0)
        grids += [Grid(step, low) for low in sorted({down, _SIGNED if lowest < 0 else 0})]
    return min(grids, key=lambda one: float(np.square(one.rounded(sample) - sample).sum()))


def weight_steps(largest: Floats, bias: Floats, step: float) -> Floats:
    """Steps of the weights of each output: powers of two.

    Args:
        largest: Magnitude of the weights of each output.
        bias: That is added to each, of the same shape.
        step: Of the numbers that the weights multiply.
    """
    # A step so small that a bias would need more bits could not be added exactly.
    floor = np.maximum(largest / 127, np.abs(bias) / (2**_EXACT_BITS * step))
    return np.asarray(np.exp2(np.ceil(np.log2(np.maximum(floor, _FINEST)))))


def whole_weights(weights: Floats, steps: Floats) -> npt.NDArray[np.int8]:
    """Weights in steps, which are broadcast along them: whole numbers from -127 to 127."""
    return np.asarray(np.clip(np.rint(weights / steps), -127, 127).astype(np.int8))


def between(bias: Floats, steps: Floats) -> Floats:
    """A bias moved half-way between two multiples of the sums' steps, where no sum is a tie."""
    return np.asarray((np.floor(bias / steps) + 0.5) * steps)
