"""Near-copies between some rows and some others, by exact scores.

Products in float32 tell which pairs may be near-copies. Exact scores are computed of those that
are needed: in a pile of a thousand look-alikes, of some thousand pairs and not of half a million.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.copies.components import Places, spanning
from lookalike.copies.spec import passes
from lookalike.distances import Ids, Vectors, score_pairs
from lookalike.estimates import Estimator

_QUERIES, _MEMBERS = 1024, 2048  # of a tile: two million pairs, with their places 64 MiB


@dataclass(frozen=True)
class Rows:
    """Some rows.

    Attributes:
        ids: (n,).
        values: (n,) uint64; the rows of a pair have the same.
        vectors: (n, d) float32.
    """

    ids: Ids
    values: npt.NDArray[np.uint64]
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, some: Places | npt.NDArray[np.bool_] | slice) -> Rows:
        return Rows(self.ids[some], self.values[some], self.vectors[some])


def links_between(
    rows: Rows, others: Rows, threshold: float, metric: str
) -> Iterator[tuple[Ids, Ids]]:
    """Ids of near-copies, (m,) and (m,): as many pairs as connect those that there are."""
    for start in range(0, len(rows), _QUERIES):
        some = rows[start : start + _QUERIES]
        estimator = Estimator(some.vectors, metric)
        edges = np.full(len(some), threshold, dtype=np.float32)
        for first in range(0, len(others), _MEMBERS):
            own = others[first : first + _MEMBERS]
            chosen, places = estimator.candidates(own.vectors, edges, 1)
            pair = some.ids[chosen] != own.ids[places]
            pair &= some.values[chosen] == own.values[places]
            chosen, places = _linked(some, own, chosen[pair], places[pair], threshold, metric)
            if len(chosen):
                yield some.ids[chosen], own.ids[places]


def near_pairs(rows: Rows, others: Rows, threshold: float, metric: str) -> tuple[Places, Places]:
    """All near-copies, as places in both (m,), (m,); for few rows, such as a sample."""
    estimator = Estimator(rows.vectors, metric)
    chosen, places = estimator.candidates(
        others.vectors, np.full(len(rows), threshold, dtype=np.float32), 1
    )
    pair = rows.ids[chosen] != others.ids[places]
    pair &= rows.values[chosen] == others.values[places]
    chosen, places = chosen[pair], places[pair]
    scores = score_pairs(rows.vectors, others.vectors, chosen, places, metric)
    good = passes(scores, threshold, metric)
    return chosen[good], places[good]


def _linked(
    rows: Rows, others: Rows, chosen: Places, places: Places, threshold: float, metric: str
) -> tuple[Places, Places]:
    """Of pairs that may be near-copies, a spanning forest of those that are."""
    count, right = len(rows) + len(others), len(rows) + places

    def good(some: Places) -> Places:
        scores = score_pairs(rows.vectors, others.vectors, chosen[some], places[some], metric)
        return some[passes(scores, threshold, metric)]

    first = np.sort(spanning(chosen, right, count)[1])
    kept = good(first)
    if len(kept) < len(first):
        # What those connect needs no other pair; of the rest, any may be what connects it.
        labels, _ = spanning(chosen[kept], right[kept], count)
        kept = np.concatenate([kept, good(np.flatnonzero(labels[chosen] != labels[right]))])
        kept = kept[spanning(chosen[kept], right[kept], count)[1]]
    return chosen[kept], places[kept]
