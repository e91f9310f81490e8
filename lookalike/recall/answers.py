"""Which candidates are right answers, and what is lost where: counted from known neighbours.

Candidates are compared with the true neighbours by id, so no vector has to be read, and one scan
gives the recall at every re-ranking depth. Rows of equal score count alike: if the 10th and 11th
neighbour of a query are equally near, either is a right answer for recall@10. A row that is as near
as the last neighbour known may have been left out of the known ones; only then is its exact score
computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Scores, better_is_higher
from lookalike.exact_neighbours import TOLERANCE, ExactNeighbours

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RightAnswers:
    """What counts among the first `level` neighbours of each query, as `recall_at_k` has it.

    Attributes:
        level: The k of recall@k.
        there: True neighbours to find, (q,): `level`, or fewer in a small store.
        width: How many of the known neighbours, from the first on, are right answers, (q,):
            `there`, and more if further ones have the same score as the last of these.
        edge: The score that is good enough, (q,) float64.
        higher: Whether a higher score is better.
        unsettled: Queries (q,) all of whose known neighbours are right answers, so that rows that
            are not known may be right answers too.
    """

    level: int
    there: Counts
    width: Counts
    edge: Shares
    higher: bool
    unsettled: Flags

    def good(self, scores: Scores, queries: Ids | slice) -> Flags:
        """Whether exact scores (n, m) of n of the queries are good enough."""
        edge = self.edge[queries][:, None]
        return np.asarray(scores >= edge if self.higher else scores <= edge)

    def shares(self, found: Counts, queries: slice) -> Shares:
        """Recall per query, (n, ...), from how many good ones were found, (n, ...)."""
        there = self.there[queries].reshape(-1, *[1] * (found.ndim - 1))
        return np.where(there > 0, np.minimum(found, there) / np.maximum(there, 1), 1.0)


def right_answers(truth: ExactNeighbours, level: int) -> RightAnswers:
    """What counts for recall@level, 1 <= level <= truth.k."""
    known = truth.ids >= 0
    higher = better_is_higher(truth.metric)
    there = known[:, :level].sum(axis=1)
    last = truth.scores[np.arange(len(there)), np.maximum(there, 1) - 1].astype(np.float64)
    slack = TOLERANCE * np.maximum(1.0, np.abs(last))
    edge = np.where(there > 0, last - slack if higher else last + slack, 0.0)
    good = truth.scores >= edge[:, None] if higher else truth.scores <= edge[:, None]
    width = (good & known).sum(axis=1)
    return RightAnswers(level, there, width, edge, higher, width == truth.k)


def columns_of(candidates: Ids, known: Ids) -> Counts:
    """Where each candidate (n, m) stands among the known neighbours (n, w) of its own query.

    Returns:
        Columns (n, m) int64, w for a candidate that is not among them.
    """
    absent = known.shape[1]
    columns = np.full(candidates.shape, absent, dtype=np.int64)
    if not absent:
        return columns
    for row, (wanted, given) in enumerate(zip(known, candidates, strict=True)):
        order = np.argsort(wanted, kind="stable")
        at = order[np.minimum(np.searchsorted(wanted, given, sorter=order), absent - 1)]
        columns[row] = np.where((wanted[at] == given) & (given >= 0), at, absent)
    return columns


def in_rows(values: Ids, rows: Ids, count: int) -> Flags:
    """Which values (n, w) are in the row (n, m) beside them; all are under `count`, -1 in none."""
    inside = np.zeros(values.shape, dtype=bool)
    marked = np.zeros(count + 1, dtype=bool)  # the last place is that of -1
    for at, row in enumerate(rows):
        marked[row] = True
        marked[-1] = False
        inside[at] = marked[values[at]]
        marked[row] = False
    return inside


def reachable(found: Flags, columns: Counts, probed: Flags, width: Counts) -> Counts:
    """How many good rows lie in the probed lists, per query (n,).

    Args:
        found: Which candidates (n, m) are good; they lie in probed lists, whatever `probed` says.
        columns: Their columns among the known neighbours, w for none.
        probed: Which known neighbours (n, w) lie in a probed list.
        width: How many leading known neighbours are good, (n,).
    """
    known = np.arange(probed.shape[1]) < width[:, None]
    there = np.concatenate([probed & known, np.zeros((len(probed), 1), bool)], axis=1)
    rows, places = np.nonzero(found)
    there[rows, columns[rows, places]] = True
    others = (found & (columns == probed.shape[1])).sum(axis=1)
    return np.asarray(there[:, :-1].sum(axis=1) + others)


def without_own(candidates: Ids, own: Ids, depth: int) -> Ids:
    """The first `depth` candidates (n, m) but the query itself, own (n,); -1 at the end."""
    there = (candidates >= 0) & (candidates != own[:, None])
    order = np.argsort(~there, axis=1, kind="stable")[:, :depth]
    return np.asarray(
        np.where(np.take_along_axis(there, order, 1), np.take_along_axis(candidates, order, 1), -1)
    )
