"""Groups of near-copies to look at: those of a sample of rows, found among each one's nearest.

`lookalike duplicates` finds those of all rows, which is a job; here one search does, whose cost is
bounded however large the store is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lookalike.copies.components import Links, grouped
from lookalike.copies.spec import asked_threshold, passes
from lookalike.distances import Ids
from lookalike.errors import RequestError
from lookalike.search.searcher import Searcher
from lookalike.serve.browsing import passing, random_rows

SAMPLE = 4096
"""Rows whose near-copies are looked for; all, where there are no more."""

NEAREST = 16
"""Rows that are looked at for each of them."""

_SEED = 0  # so that all pages show groups of the same sample


@dataclass(frozen=True)
class NearCopies:
    """What was found, and how.

    Attributes:
        groups: Ids (n,) of the rows of each, the largest first.
        threshold: The least score of a pair, or under l2 the largest distance.
        looked: Rows whose near-copies were looked for, of those that were asked for.
        of: Rows that were asked for: all, or those that fulfil the condition.
    """

    groups: tuple[Ids, ...]
    threshold: float
    looked: int
    of: int


def near_copies(now: Searcher, threshold: float | None, where: str | None = None) -> NearCopies:
    """Groups of rows that are linked by near-copies.

    A condition leaves of each group the rows that fulfil it, if they are two or more. What links
    them may be rows that do not.

    Raises:
        RequestError: The metric has no such threshold, or none that is usual, or the condition
            cannot be used.
    """
    try:
        edge = asked_threshold(threshold, now.metric)
    except RequestError as error:
        raise RequestError(str(error).removeprefix("--")) from None
    asked = random_rows(now, SAMPLE, _SEED, where).ids
    ids, links = np.sort(_filled(now, asked)), Links()
    vectors = now.like(ids.tolist()).vectors
    found, scores = now.search_vectors(vectors, NEAREST + 1)  # itself is one of them, or equal
    pairs = passes(scores, edge, now.metric) & (found >= 0) & (found != ids[:, None])
    links.add(np.repeat(ids, pairs.sum(axis=1)), found[pairs])
    groups = list(grouped(*links.arrays()))
    if where is None:
        return NearCopies(tuple(groups), edge, len(asked), now.count)
    chosen = passing(now, where)
    parts = [part for one in groups if len(part := one[np.isin(one, chosen)]) > 1]
    return NearCopies(tuple(sorted(parts, key=len, reverse=True)), edge, len(asked), len(chosen))


def _filled(now: Searcher, ids: Ids) -> Ids:
    """Rows (n,), and where they are fewer than a sample, others at random that may link them."""
    room = SAMPLE - len(ids)
    if room <= 0:
        return ids
    others = random_rows(now, SAMPLE, _SEED, None).ids
    return np.concatenate([ids, others[~np.isin(others, ids)][:room]])
