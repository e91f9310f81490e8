"""Near-copies in long lists: a pile of look-alikes is linked by its middle, not pair by pair.

Of the rows of a long list some are leaders. What is much nearer to a leader than near-copies need
to be is linked with it, and so with all others in its ball, which are never compared. Distances
obey the triangle inequality, so what lies farther from a leader than the threshold and the ball's
radius together is a near-copy of nothing in the ball. Only what lies between is compared with the
rows of the ball one by one:

    to the leader     0 ... radius   ... threshold        ... threshold + radius ...
                      in the ball    linked, as it is     compared with the ball    nothing there

So nothing is lost, and a pile of n rows takes n comparisons with each leader in place of n².
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.copies.tiles import Rows, links_between
from lookalike.distances import Ids, score

_LONG = 2048  # rows of a list, and that look into it, from which leaders are worth their while
_LEADERS = 64
_FEWEST = 256  # rows of a ball, on either side
_RADIUS = 0.75  # of a ball, as a share of the threshold's distance
# Distances are of scores in float32, which says least of small angles: a thousandth either way at
# the thresholds that are taken. Half a radius is more than that, where several add up.
_SLACK = 0.5  # of a radius, by which more is compared than the triangle inequality asks for
_SURE = 0.1  # of a radius, by which less is linked unseen
_LEAST: Mapping[str, float] = {"cosine": 0.01, "jaccard": 1e-3, "l2": 1e-30}
_ROWS = 1024  # compared with all leaders at a time

Distances = npt.NDArray[np.float64]
Which = npt.NDArray[np.intp]


def links(rows: Rows, others: Rows, threshold: float, metric: str) -> Iterator[tuple[Ids, Ids]]:
    """Ids of near-copies, (m,) and (m,): pairs that connect all rows and others that any do.

    Of inner products, which are no distances, and of short lists all are compared.
    """
    long = min(len(rows), len(others)) >= _LONG and metric in _LEAST
    edge = float(_distances(np.array([threshold]), metric)[0]) if long else 0.0
    if not long or edge < _LEAST[metric]:
        yield from links_between(rows, others, threshold, metric)
        return
    leaders = others[np.linspace(0, len(others) - 1, _LEADERS).astype(np.intp)]
    near, far = (_Side.of(side, leaders, _RADIUS * edge, metric) for side in (rows, others))
    large = np.flatnonzero((near.counts >= _FEWEST) | (far.counts >= _FEWEST))
    near, far = near.only(large), far.only(large)
    for side in (near, far):
        yield from side.to_leaders(leaders)
    yield from _between_balls(near, far, leaders, edge, threshold, metric)
    for one in large.tolist():
        for side in (near, far):
            sure, unsure = side.free_about(one, edge)
            yield side.rows.ids[sure], np.full(len(sure), leaders.ids[one])
            left, right = (
                side.rows[unsure] if side is own else own.rows[own.own == one]
                for own in (near, far)
            )
            yield from links_between(left, right, threshold, metric)
    left, right = (side.rows[side.own < 0] for side in (near, far))
    yield from links_between(left, right, threshold, metric)


@dataclass(frozen=True)
class _Side:
    """The rows, or the others.

    Attributes:
        away: Distances (n, leaders), infinite where values differ.
        own: The leader of each one's ball (n,), -1 for none.
    """

    rows: Rows
    away: Distances
    own: Which

    @classmethod
    def of(cls, rows: Rows, leaders: Rows, radius: float, metric: str) -> _Side:
        """Each row in the ball of the first leader that is near enough."""
        away = _away(rows, leaders, metric)
        inside = away <= radius
        return cls(rows, away, np.where(inside.any(axis=1), inside.argmax(axis=1), -1))

    @property
    def counts(self) -> Which:
        """Rows in each ball (leaders,)."""
        return np.bincount(self.own[self.own >= 0], minlength=self.away.shape[1])

    def only(self, leaders: Which) -> _Side:
        """With the balls of these alone."""
        return _Side(self.rows, self.away, np.where(np.isin(self.own, leaders), self.own, -1))

    def to_leaders(self, leaders: Rows) -> Iterator[tuple[Ids, Ids]]:
        """Links of those in balls."""
        inside = np.flatnonzero(self.own >= 0)
        left, right = self.rows.ids[inside], leaders.ids[self.own[inside]]
        yield left[left != right], right[left != right]

    def free_about(self, leader: int, edge: float) -> tuple[Which, Which]:
        """Of those in no ball, which are linked with a leader, and which may be with its ball."""
        away, radius = self.away[:, leader], _RADIUS * edge
        sure = away <= edge - _SURE * radius
        unsure = ~sure & (away <= edge + (1 + _SLACK) * radius)
        return np.flatnonzero((self.own < 0) & sure), np.flatnonzero((self.own < 0) & unsure)


def _between_balls(
    near: _Side, far: _Side, leaders: Rows, edge: float, threshold: float, metric: str
) -> Iterator[tuple[Ids, Ids]]:
    """A link between two balls, where there is one and others do not connect them."""
    gaps, radius = _away(leaders, leaders, metric), _RADIUS * edge
    label = np.arange(len(leaders))
    there = (near.counts > 0)[:, None] & (far.counts > 0)[None, :]
    close = there & (gaps <= edge + (2 + _SLACK) * radius)
    for place in np.argsort(gaps, axis=None, kind="stable").tolist():
        one, other = divmod(place, len(leaders))
        if not close[one, other] or label[one] == label[other]:
            continue
        if gaps[one, other] <= edge - _SURE * radius:
            yield leaders.ids[[one]], leaders.ids[[other]]
        else:
            left, right = near.rows[near.own == one], far.rows[far.own == other]
            found = next(links_between(left, right, threshold, metric), None)
            if found is None:
                continue
            yield found
        label[label == label[other]] = label[one]


def _away(rows: Rows, leaders: Rows, metric: str) -> Distances:
    """Distances (n, m) of rows to leaders, infinite where values differ."""
    found = np.empty((len(rows), len(leaders)))
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        scores = score(rows.vectors[part], leaders.vectors, metric)
        found[part] = _distances(scores, metric)
    found[rows.values[:, None] != leaders.values] = np.inf
    return found


def _distances(scores: npt.NDArray[np.floating], metric: str) -> Distances:
    """What obeys the triangle inequality: angles, 1 - jaccard (a metric, too), l2 as it is."""
    wide = np.asarray(scores, dtype=np.float64)
    if metric == "cosine":
        return np.asarray(np.arccos(np.clip(wide, -1, 1)))
    return 1 - wide if metric == "jaccard" else wide
