"""How well a trained index fits vectors: what their codes lose, and how even their lists are.

Measured on the sample when a trained index is trained, and on all vectors while they are encoded; a
trained index that later vectors no longer fit should be trained anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Vectors

MOST_ERROR = 1.1  # times the training's; above, codes lose too much
MOST_IMBALANCE = 2.0  # times the training's; above, some lists take too long to scan


class Fitness:
    """Sums over vectors, from which their measures come; those of parts can be merged.

    Attributes:
        rows: Vectors.
        sizes: Vectors in each list, (nlist,) int64.
        lost: Sum of each vector's share of squared length that rotation and code lose.
        rotated: The rotation's part of it.
        squares: Sum of the squares of those shares.
    """

    def __init__(self, nlist: int) -> None:
        self.rows, self.lost, self.rotated, self.squares = 0, 0.0, 0.0, 0.0
        self.sizes: Ids = np.zeros(nlist, dtype=np.int64)

    def add(self, vectors: Vectors, prepared: Vectors, errors: Vectors, lists: Ids) -> None:
        """Count encoded vectors.

        Args:
            vectors: (n, dim), as before the rotation (`metrics.candidate_vectors`).
            prepared: (n, D), after it.
            errors: (n, D), prepared vectors less what their codes stand for.
            lists: (n,) int64.
        """
        length, kept, coded = (_squares(rows) for rows in (vectors, prepared, errors))
        length = np.maximum(length, np.finfo(np.float32).tiny)
        self.rows += len(vectors)
        self.sizes += np.bincount(lists, minlength=len(self.sizes))
        shares = (length - kept + coded) / length
        self.lost += float(shares.sum())
        self.squares += float(np.square(shares).sum())
        self.rotated += float(((length - kept) / length).sum())

    def merge(self, other: Fitness) -> None:
        """Add the vectors of another part."""
        self.rows += other.rows
        self.sizes += other.sizes
        self.lost += other.lost
        self.rotated += other.rotated
        self.squares += other.squares

    def measures(self) -> dict[str, float]:
        """`imbalance`, `quantisation_error` and `rotation_error`, as trained indexes state them."""
        rows = max(self.rows, 1)
        return {
            "imbalance": imbalance(self.sizes),
            "quantisation_error": self.lost / rows,
            "rotation_error": self.rotated / rows,
        }

    def standard_error(self) -> float:
        """Of `quantisation_error`, as that of a sample of vectors."""
        rows = max(self.rows, 1)
        variance = max(0.0, self.squares / rows - (self.lost / rows) ** 2)
        return sqrt(variance / rows)


def imbalance(sizes: npt.ArrayLike) -> float:
    """How uneven lists of these sizes (nlist,) are: 1 when equal, nlist when one has everything.

    It is the mean number of vectors that a query scans in its list, if each vector is equally
    likely to be what it looks for, divided by that number for lists of equal size. Of two lists
    with 3 and 1 vectors, 3 of 4 queries scan 3 vectors and one scans 1, on average 2.5; equal
    lists would have 2, so the imbalance is 1.25.
    """
    counts = np.asarray(sizes, dtype=np.float64)
    total = float(counts.sum())
    return float(len(counts) * (counts**2).sum() / total**2) if total else 1.0


def compare(training: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """New vectors' measures against those of training: `error_ratio`, `imbalance_ratio`, `fits`."""
    error = _ratio(new["quantisation_error"], training["quantisation_error"])
    uneven = _ratio(new["imbalance"], training["imbalance"])
    return {
        "error_ratio": round(error, 4),
        "imbalance_ratio": round(uneven, 4),
        "fits": error <= MOST_ERROR and uneven <= MOST_IMBALANCE,
    }


def _ratio(new: float, old: float) -> float:
    return max(new, 1e-6) / max(old, 1e-6)  # what float32 cannot tell from nothing


def _squares(rows: Vectors) -> npt.NDArray[np.float64]:
    return np.asarray(np.square(rows, dtype=np.float64).sum(axis=1))
