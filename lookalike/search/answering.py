"""How a block of queries is answered: by the index, or by comparing all rows that a filter leaves.

Queries for which the index finds too few are searched again, more widely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lookalike.distances import Ids, Scores, Vectors, top_k
from lookalike.ivf.selections import Selection
from lookalike.ivf.spec import IndexSpec

# Up to so many rows that match a filter are always compared one by one. More rows are, if that
# costs less than a search by the index. Costs are in codes scanned, measured with vectors of 512
# components.
_EXACT_ROWS = 10_000
_READ_COST = 500  # a stored vector
_SCORE_COST = 8  # a query and a row, all of them by one matrix product
_WIDER = 4


@dataclass(frozen=True)
class Request:
    """What is asked of all queries alike.

    Attributes:
        k: Neighbours, at most `rows`.
        nprobe: Lists to scan, were there no filter.
        depth: Candidates to score exactly, those that a query excludes among them.
        rows: Rows that may be returned.
        of: Living rows.
        selection: Which may be returned, where a filter says so.
        fill: Whether to widen the search until there are `depth` candidates, not only k.
    """

    k: int
    nprobe: int
    depth: int
    rows: int
    of: int
    selection: Selection | None = None
    fill: bool = False


class Index(Protocol):
    """What searches, here or on many machines; see `vector_index.VectorIndex`."""

    spec: IndexSpec

    def search(
        self,
        queries: Vectors,
        k: int,
        nprobe: int,
        depth: int,
        without: Ids,
        selection: Selection | None = None,
    ) -> tuple[Ids, Scores, Ids]:
        """The best k by exact score of the best `depth` candidates, and how many were found."""

    def nearest(self, queries: Vectors, ids: Ids, k: int) -> tuple[Ids, Scores]:
        """The best k by exact score of some rows."""

    def queries_at_once(self, depth: int) -> int:
        """How many queries to ask at a time."""


def answer(index: Index, queries: Vectors, request: Request, without: Ids) -> tuple[Ids, Scores]:
    """Ids (n, k) and exact scores (n, k) of queries (n, dim) that leave out ids (n, m)."""
    k, depth, selection = request.k, request.depth, request.selection
    nlist, nprobe = index.spec.nlist, request.nprobe
    if selection is not None:
        # If 100 of 1,000 rows match, ten times the lists are scanned, so that as many matching rows
        # are seen as a search without filter sees rows.
        nprobe = min(-(-nprobe * request.of // request.rows), nlist)
        if _few(request, len(queries), request.of * nprobe // nlist):
            return _compare_all(index, queries, selection.ids, k, without)
    ids, scores, found = index.search(queries, k, nprobe, depth, without, selection)
    enough = depth - without.shape[1] if request.fill else k
    while nprobe < nlist and len(short := np.flatnonzero(found < enough)):
        nprobe = min(_WIDER * nprobe, nlist)
        ids[short], scores[short], found[short] = index.search(
            queries[short], k, nprobe, depth, without[short], selection
        )
    return ids, scores


def _few(request: Request, queries: int, scanned: int) -> bool:
    """Whether to compare all rows that match, where the index would scan so many codes a query."""
    by_index = queries * (scanned + _READ_COST * request.depth)
    one_by_one = request.rows * (_READ_COST + _SCORE_COST * queries)
    return request.rows <= _EXACT_ROWS or one_by_one < by_index


def _compare_all(
    index: Index, queries: Vectors, rows: Ids, k: int, without: Ids
) -> tuple[Ids, Scores]:
    ids, scores = index.nearest(queries, rows, min(k + without.shape[1], len(rows)))
    for column in without.T:
        ids = np.where(ids == column[:, None], -1, ids)
    return top_k(ids, scores, k, index.spec.metric)
