"""Histograms of whatever values there are: equal, nearly equal, huge, none at all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

BINS = 30
_FEWEST_DIGITS, _MOST_DIGITS = 6, 17  # of an edge; so many tell any two numbers apart


class Histogram(TypedDict, total=False):
    """How many values lie between each two of some edges; empty where there are no values."""

    edges: list[float]
    counts: list[int]


def histogram(values: npt.ArrayLike, bins: int = BINS) -> Histogram:
    """`edges` (m + 1,) and `counts` (m,) of values (n,), m being at most `bins`; {} of none.

    Values that are not finite are in no bin. Bins of whole numbers hold as many of them each. Where
    floating point has not that many numbers between the least and the greatest value, there are
    fewer bins, and one around values that are all equal.
    """
    array = _finite(values)
    if not len(array):
        return {}
    low, high = array.min(), array.max()
    whole = array.dtype.kind in "iu"
    edges = _whole_edges(int(low), int(high), bins) if whole else even_edges(low, high, bins)
    return {"edges": written(edges), "counts": counts_in(array, edges)}


def even_edges(low: float, high: float, bins: int = BINS) -> npt.NDArray[np.float64]:
    """Ascending edges (m + 1,) float64 of at most `bins` bins, at least one, from low to high.

    Args:
        low: Finite.
        high: Finite, and not less.
        bins: At least 1.
    """
    low, high = float(low), float(high)
    if not low < high:
        # Half a unit to each side, or as much as makes a difference to a large number.
        half, most = max(0.5, abs(low) * 1e-6), float(np.finfo(np.float64).max)
        return np.array([max(-most, low - half), min(most, low + half)])
    at = np.linspace(0.0, 1.0, bins + 1)
    # No difference is taken: that of the least and the greatest number overflows.
    return np.unique(np.clip(low * (1 - at) + high * at, low, high))


def counts_in(values: npt.ArrayLike, edges: npt.NDArray[np.float64]) -> list[int]:
    """How many of the values (n,) lie in each bin (m,); the last one holds both of its edges."""
    found = _finite(values).astype(np.float64)
    inside = found[(found >= edges[0]) & (found <= edges[-1])]
    places = np.minimum(np.searchsorted(edges, inside, side="right") - 1, len(edges) - 2)
    counted: list[int] = np.bincount(places, minlength=len(edges) - 1).tolist()
    return counted


def written(edges: npt.NDArray[np.float64]) -> list[float]:
    """The edges (m + 1,) with no more digits than tell them apart."""
    for digits in range(_FEWEST_DIGITS, _MOST_DIGITS):
        short = [float(f"{edge:.{digits}g}") for edge in edges.tolist()]
        if _ascend(short) and np.isfinite(short).all():
            return short
    return [float(edge) for edge in edges.tolist()]


def _whole_edges(low: int, high: int, bins: int) -> npt.NDArray[np.float64]:
    width = -(-(high - low + 1) // bins)
    count = -(-(high - low + 1) // width)
    edges = np.unique(np.array([low + i * width for i in range(count + 1)], dtype=np.float64))
    # Whole numbers that float64 cannot tell apart are in one bin.
    return edges if len(edges) > 1 else even_edges(float(low), float(high), bins)


def _finite(values: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(values).reshape(-1)
    return np.asarray(array[np.isfinite(array)])


def _ascend(values: Sequence[float]) -> bool:
    return all(a < b for a, b in pairwise(values))
