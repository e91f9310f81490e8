"""Connected components of pairs, in arrays: union-find for as many pairs as fit in memory.

Groups of look-alikes are components: where a is like b and b is like c, the three are one group,
though a and c may be less alike than the threshold. No more pairs are needed for that than there
are rows, so what finds pairs hands on a spanning forest of them:

    pairs    a-b  b-c  a-c  d-e      (a pile of n rows has n (n - 1) / 2)
    forest   a-b  b-c       d-e      (and n - 1 are enough)
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids

Places = npt.NDArray[np.intp]

_HELD = 1 << 20  # links in memory before they are reduced


def spanning(left: Places, right: Places, count: int) -> tuple[Places, Places]:
    """Components of things 0 to count - 1, and the pairs that suffice to connect them.

    Args:
        left: (m,), one of each pair.
        right: (m,), the other.
        count: How many things there are.

    Returns:
        Labels (count,), of each component the smallest thing in it; and positions of pairs, as many
        as there are things less components.
    """
    labels: Places = np.arange(count)
    via: Places = np.empty(count, dtype=np.intp)
    pairs = np.arange(len(left))
    chosen: list[Places] = []
    while True:
        a, b = labels[left[pairs]], labels[right[pairs]]
        apart = a != b
        if not apart.any():
            return labels, np.concatenate([np.empty(0, dtype=np.intp), *chosen])
        pairs, a, b = pairs[apart], a[apart], b[apart]
        low, high = np.minimum(a, b), np.maximum(a, b)
        # Each root goes below its smallest neighbour, by one pair: of equal indices the last counts
        order = np.argsort(-low, kind="stable")
        labels[high[order]] = low[order]
        via[high[order]] = pairs[order]
        chosen.append(via[np.unique(high)])
        while (labels[labels] != labels).any():
            labels = labels[labels]


class Links:
    """Links between rows, by ids; a forest of them is held, so as many as there are rows in them.

    That takes 16 bytes for each linked row, and some 100 while links are reduced to a forest: ten
    million rows that have a copy, of however many, take about a gigabyte.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._parts: list[tuple[Ids, Ids]] = []
        self._held, self._least = 0, 0

    def add(self, left: Ids, right: Ids) -> None:
        """Link rows (m,) with rows (m,)."""
        if len(left):
            self._parts.append((left, right))
            self._held += len(left)
        if self._held > 2 * self._least + _HELD:
            self._reduce()

    def arrays(self) -> tuple[Ids, Ids]:
        """Ids (n,) of all rows that have a link, ascending, and the smallest id of their group."""
        self._reduce()
        ids, first = self._parts[0]
        return ids, first

    def _reduce(self) -> None:
        """Keep a link from each row to the first of its component, and no other."""
        nothing = np.empty(0, dtype=np.int64)
        left = np.concatenate([nothing, *(part for part, _ in self._parts)])
        right = np.concatenate([nothing, *(part for _, part in self._parts)])
        ids, places = np.unique(np.concatenate([left, right]), return_inverse=True)
        labels, _ = spanning(places[: len(left)], places[len(left) :], len(ids))
        self._parts, self._held = [(ids, ids[labels])], len(ids)
        self._least = self._held


def grouped(ids: Ids, first: Ids) -> Iterable[Ids]:
    """Groups of rows (n,) with the same `first` (n,), the largest first, then by that."""
    order = np.lexsort((ids, first))
    starts = np.flatnonzero(np.diff(first[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(ids)))
    for which in np.argsort(-sizes, kind="stable").tolist():
        yield ids[order[starts[which] : starts[which] + sizes[which]]]
