"""What is asked of an index to measure its recall, and how the candidates that it gives are rated.

A question is answered block of queries by block, wherever the candidates come from: an index that
is open here, or the files of tasks that each looked into some of its shards. Answers are JSON.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lookalike.distances import Ids, top_k
from lookalike.exact_neighbours import ExactNeighbours, recall_at_k
from lookalike.ivf.spec import IndexSpec
from lookalike.recall.answers import (
    Counts,
    Flags,
    Shares,
    columns_of,
    in_rows,
    reachable,
    right_answers,
    without_own,
)
from lookalike.search.vector_index import VectorIndex

_BLOCK_BYTES = 64 << 20
_ROWS_AT_ONCE = 16_384  # stored vectors read to learn their lists

Answer = Mapping[str, Any]
"""How good candidates are, as JSON; see `Rater.rate`."""


@dataclass(frozen=True)
class Question:
    """One way to search with the queries.

    Attributes:
        nprobe: Lists to scan.
        depth: Candidates of each query.
        levels: The k of each recall@k that is wanted.
        exact: Whether to score candidates by stored vectors; else they are counted at every depth.
        stride: Every so many-th query is asked.
    """

    nprobe: int
    depth: int
    levels: tuple[int, ...]
    exact: bool = False
    stride: int = 1

    def blocks(self, queries: int) -> list[slice]:
        """Which of the queries are asked, so many at a time as fit in memory."""
        if self.exact:
            step = VectorIndex.queries_at_once(self.depth) * self.stride
        else:
            step = max(1, _BLOCK_BYTES // (64 * (self.depth + 1)))
        return [
            slice(start, min(start + step, queries), self.stride)
            for start in range(0, queries, step)
        ]


class Trial(Protocol):
    """An index, and queries whose neighbours are known.

    Attributes:
        spec: What the index is.
        rows: Vectors that can be found.
        truth: The queries and their exact neighbours.
        at_once: Questions that had better be asked together, where more than one may come.
    """

    spec: IndexSpec
    rows: int
    truth: ExactNeighbours
    at_once: int

    def ask(self, questions: Sequence[Question]) -> list[list[Answer]]:
        """Answers of all blocks of each question, in order (see `Rater.rate`)."""


class Rater:
    """Rates candidates by what is known of the queries' neighbours.

    Attributes:
        k: The recall that matters: ties beyond the known neighbours are looked for at k alone.
        lists: The list of each known neighbour that counts, (q, truth.k); -1 for the others.
    """

    def __init__(
        self,
        index: VectorIndex,
        rows: int,
        truth: ExactNeighbours,
        k: int,
        lists: Ids | None = None,
    ) -> None:
        """Learn the neighbours' lists, where they are not given.

        Args:
            index: Whose trained index and stored vectors are asked; its shards are not.
            rows: Vectors that can be found.
            truth: The queries and their neighbours, with truth.k >= k.
            k: See the class.
            lists: Of another rater of the same.
        """
        self._index, self._rows, self._truth, self.k = index, rows, truth, k
        self._right = {level: right_answers(truth, level) for level in levels_of(truth, k)}
        self.lists = _lists_of(index, truth, self._right[k].width) if lists is None else lists

    def wanted(self, question: Question) -> int:
        """Candidates to get for each query: one more, as it may be the query."""
        return min(question.depth + 1, self._rows)

    def rate(self, question: Question, rows: slice, found: Ids) -> Answer:
        """How good candidates (n, `wanted`) of some of the queries are, best first, -1 for none.

        Returns:
            For an exact question, by level and query, recall in the order of the codes (`before`)
            and after re-ranking (`after`); by query, recall@k of the candidates, were they ranked
            without fault (`kept`), and of all rows in the lists scanned (`inside`); `seconds` of
            scoring. Else `sums` over the queries of recall by level and depth, and of `inside`.
        """
        candidates = without_own(found, self._truth.query_ids[rows], question.depth)
        rated = self._exact if question.exact else self._counted
        return rated(question, rows, candidates)

    def _counted(self, question: Question, rows: slice, candidates: Ids) -> Answer:
        columns = columns_of(candidates, self._truth.ids[rows])
        sums, inside = {}, 0.0
        for level in question.levels:
            good = self._good(level, candidates, columns, rows)
            shares = self._right[level].shares(good.cumsum(axis=1), rows)
            sums[str(level)] = shares.sum(axis=0).tolist()
            if level == self.k:
                inside = float(self._inside(good, columns, rows, question.nprobe).sum())
        return {"sums": sums, "inside": inside}

    def _exact(self, question: Question, rows: slice, candidates: Ids) -> Answer:
        truth, levels = self._truth, question.levels
        began = time.perf_counter()
        scores = self._index.exact_scores(truth.queries[rows], candidates)
        seconds = time.perf_counter() - began
        ids, best = top_k(candidates, scores, max(levels), truth.metric)
        known = truth.ids[rows], truth.scores[rows]

        def shares(ids: Ids, scores: Any) -> dict[str, list[float]]:
            return {
                str(level): recall_at_k(ids, scores, *known, level, truth.metric).tolist()
                for level in levels
            }

        columns, right = columns_of(candidates, truth.ids[rows]), self._right[self.k]
        good = (columns < right.width[rows, None]) | ((candidates >= 0) & right.good(scores, rows))
        return {
            "before": shares(candidates, scores),
            "after": shares(ids, best),
            "kept": right.shares(good.sum(axis=1), rows).tolist(),
            "inside": self._inside(good, columns, rows, question.nprobe).tolist(),
            "seconds": seconds,
        }

    def _good(self, level: int, candidates: Ids, columns: Counts, rows: slice) -> Flags:
        """Which candidates (n, m) of a slice of the queries count for recall@level.

        Ties that run on beyond the known neighbours are looked for at k alone; elsewhere they are
        not worth the reading.
        """
        right = self._right[level]
        good: Flags = columns < right.width[rows, None]
        if level == self.k and right.unsettled[rows].any():
            open_ = np.flatnonzero(right.unsettled[rows])
            queries = np.arange(len(right.there))[rows][open_]
            scores = self._index.exact_scores(self._truth.queries[queries], candidates[open_])
            good[open_] |= (candidates[open_] >= 0) & right.good(scores, queries)
        return good

    def _inside(self, good: Flags, columns: Counts, rows: slice, nprobe: int) -> Shares:
        """The recall@k (n,) that perfect codes would have in the lists scanned."""
        right = self._right[self.k]
        scanned = self._index.probed(self._truth.queries[rows], nprobe)
        probed = in_rows(self.lists[rows], scanned, self._index.spec.nlist)
        return right.shares(reachable(good, columns, probed, right.width[rows]), rows)


class Here:
    """A `Trial` of an index that is open in this process."""

    at_once = 1

    def __init__(self, index: VectorIndex, rows: int, truth: ExactNeighbours, k: int) -> None:
        """Ask an index in which so many rows can be found for recall@k."""
        self.spec, self.rows, self.truth = index.spec, rows, truth
        self._index, self._rater = index, Rater(index, rows, truth, k)

    def ask(self, questions: Sequence[Question]) -> list[list[Answer]]:
        """See `Trial`."""
        return [
            [self._answer(question, rows) for rows in question.blocks(len(self.truth.queries))]
            for question in questions
        ]

    def _answer(self, question: Question, rows: slice) -> Answer:
        began = time.perf_counter()
        found, _ = self._index.candidates(
            self.truth.queries[rows], question.nprobe, self._rater.wanted(question)
        )
        seconds = time.perf_counter() - began
        return {"seconds": seconds, **self._rater.rate(question, rows, found)}


def levels_of(truth: ExactNeighbours, k: int) -> tuple[int, ...]:
    """The k of each recall@k that is measured, k among them.

    Raises:
        ValueError: Fewer neighbours are known.
    """
    if not 1 <= k <= truth.k:
        raise ValueError(f"recall@{k} needs {k} true neighbours per query, there are {truth.k}")
    return tuple(sorted({k, *(at for at in (1, 10, 100) if at <= truth.k)}))


def _lists_of(index: VectorIndex, truth: ExactNeighbours, width: Counts) -> Ids:
    lists = np.full(truth.ids.shape, -1, dtype=np.int64)
    wanted = np.arange(truth.k) < width[:, None]
    distinct = np.unique(truth.ids[wanted])
    found = np.concatenate(
        [
            np.zeros(0, np.int64),
            *(
                index.lists_of(distinct[start : start + _ROWS_AT_ONCE])
                for start in range(0, len(distinct), _ROWS_AT_ONCE)
            ),
        ]
    )
    lists[wanted] = found[np.searchsorted(distinct, truth.ids[wanted])]
    return lists
