"""Recall over nprobe and re-ranking depth: one scan per nprobe gives all depths.

Candidates come in the order of their codes. Re-ranking the first m of them returns the k nearest
neighbours as far as these are among the m. So recall@k at depth m is the number of true neighbours
among the first m candidates, divided by k, and one scan gives it for every m. For example, with
k = 3 and true neighbours at places 1, 4 and 6 of the candidates, recall is 1/3 at depths up to 3,
2/3 at 4 and 5, and 1 from 6 on.

nprobe is tried at 1, 2, 4, ... until more lists cannot be cheaper than the best setting found, and
then at some numbers in between.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lookalike.exact_neighbours import ExactNeighbours, interval
from lookalike.metrics import Ids
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
from lookalike.search.searcher import Searcher

# What one more list and one more re-ranked vector cost, in codes scanned. Costs are counted and not
# timed, so that every run on the same data chooses the same setting. The ratios are those measured
# with 113,000 vectors of 512 components and 4-bit codes of 32 bytes on two cores: 4 ns for a code,
# 2 us for a list, 6 us for a vector read and scored.
LIST_COST = 500
VECTOR_COST = 1500

NEGLIGIBLE = 0.002  # of recall, where the target is out of reach anyway

_BLOCK_BYTES = 64 << 20
_ROWS_AT_ONCE = 16_384  # stored vectors read to learn their lists
_REFINEMENTS = 3  # each halves the steps of nprobe around the cheapest


@dataclass(frozen=True)
class Setting:
    """How much a search does: lists scanned and candidates scored exactly."""

    nprobe: int
    rerank: int


@dataclass(frozen=True)
class Scan:
    """What candidates from `nprobe` lists hold.

    Attributes:
        nprobe: Lists scanned per query.
        curves: For each level, the recall@level after re-ranking the first 1, 2, ... candidates,
            (depth,). At depth `level` it is the recall of the codes' own order.
        reachable: The recall@k that perfect codes would have: of all rows in those lists.
        seconds: Scanning per query.
    """

    nprobe: int
    curves: Mapping[int, Shares]
    reachable: float
    seconds: float


class Sweeper:
    """Scans with ever more lists, for one set of queries.

    Attributes:
        k: The recall that is to reach the target.
        levels: All that are measured, k among them.
        depth: The deepest re-ranking.
        population: Rows that the queries stand for.
        right: What counts, by level.
        scans: Those made, by nprobe.
    """

    def __init__(
        self, searcher: Searcher, truth: ExactNeighbours, k: int, target: float, depth: int
    ) -> None:
        """Nothing is scanned yet."""
        self.searcher, self.truth, self.k, self.target = searcher, truth, k, target
        self.depth = max(1, min(depth, searcher.count))
        self.levels = sorted({k, *(at for at in (1, 10, 100) if at <= truth.k)})
        self.population = max(searcher.count, len(truth.query_ids))
        self.scans: dict[int, Scan] = {}
        self.right = {level: right_answers(truth, level) for level in self.levels}
        self._lists = _lists_of(searcher, truth, self.right[k].width)

    def bounds(self, recall: float) -> tuple[float, float]:
        """Interval of a mean over the queries."""
        return interval(recall, len(self.truth.queries), self.population)

    def cost(self, setting: Setting) -> float:
        """What a query costs, in codes scanned."""
        per_list = self.searcher.count / self.searcher.spec.nlist + LIST_COST
        return per_list * setting.nprobe + VECTOR_COST * setting.rerank

    def run(self, most: int, shallowest: int, fewest: int = 1) -> None:
        """Scan with 1, 2, 4, ... lists up to `most`, then around the cheapest that will do.

        Numbers of lists below `fewest` are left out.

        The doubling stops after the second step that reaches the target, unless more lists with
        fewer vectors to re-rank may still cost less. It also stops when nearly all true neighbours
        are in lists that are scanned already and the target is still missed: what is missing then
        is lost by codes, and more lists do not bring it back.
        """
        powers = (1 << power for power in range(most.bit_length()))
        steps = [step for step in powers if fewest <= step < most] + [most]
        reaching = 0  # scans since the target was reached
        for nprobe in steps:
            if reaching > 1 and self._cannot_win(nprobe, shallowest):
                break
            scan = self.scan(nprobe)
            if self.cheapest(shallowest) is not None:
                reaching += 1
            elif 1 - scan.reachable < NEGLIGIBLE and not self._reaches(
                scan.curves[self.k][-1] + 1 - scan.reachable
            ):
                break
        for _ in range(_REFINEMENTS if reaching else 0):
            for nprobe in self._between(shallowest):
                if not self._cannot_win(nprobe, shallowest):
                    self.scan(nprobe)

    def scan(self, nprobe: int) -> Scan:
        """Recall with so many lists, at every depth."""
        if nprobe not in self.scans:
            self.scans[nprobe] = self._scan(nprobe)
        return self.scans[nprobe]

    def cheapest(self, shallowest: int, above: Mapping[int, int] | None = None) -> Setting | None:
        """The cheapest setting whose lower bound reaches the target, if any does.

        Args:
            shallowest: The least depth.
            above: For some nprobe, the depth that did not do.
        """
        settings = []
        for nprobe in self.scans:
            least = max(shallowest, (above or {}).get(nprobe, 0) + 1)
            depth = self.enough(nprobe, least)
            if depth is not None:
                settings.append(Setting(nprobe, depth))
        return min(settings, key=lambda each: (self.cost(each), each.nprobe), default=None)

    def enough(self, nprobe: int, shallowest: int) -> int | None:
        """The least depth that reaches the target with so many lists, if any does."""
        curve = self.scans[nprobe].curves[self.k]
        depth = max(shallowest, bisect_left(curve.tolist(), True, key=self._reaches) + 1)
        return depth if depth <= self.depth else None

    def best(self, shallowest: int) -> Setting:
        """The cheapest setting of those whose recall is the best there is, or next to it."""
        curves = {nprobe: scan.curves[self.k] for nprobe, scan in self.scans.items()}
        enough = max(curve[-1] for curve in curves.values()) - NEGLIGIBLE
        settings = [
            Setting(nprobe, max(shallowest, int(np.searchsorted(curve, enough)) + 1))
            for nprobe, curve in curves.items()
            if curve[-1] >= enough
        ]
        return min(settings, key=lambda each: (self.cost(each), each.nprobe))

    def _reaches(self, recall: float) -> bool:
        return self.bounds(min(1.0, recall))[0] >= self.target

    def _cannot_win(self, nprobe: int, shallowest: int) -> bool:
        best = self.cheapest(shallowest)
        return best is not None and self.cost(Setting(nprobe, shallowest)) >= self.cost(best)

    def _between(self, shallowest: int) -> list[int]:
        """Numbers of lists half way from the cheapest to its neighbours."""
        best = self.cheapest(shallowest)
        if best is None:
            return []
        tried = sorted(self.scans)
        at = tried.index(best.nprobe)
        around = tried[max(0, at - 1) : at] + tried[at + 1 : at + 2]
        middles = {(other + best.nprobe) // 2 for other in around}
        return sorted(middles.difference(tried))

    def _scan(self, nprobe: int) -> Scan:
        truth, queries = self.truth, len(self.truth.queries)
        if not queries:
            return Scan(nprobe, {level: np.ones(self.depth) for level in self.levels}, 1.0, 0.0)
        sums = {level: np.zeros(self.depth) for level in self.levels}
        inside = seconds = 0.0
        step = max(1, _BLOCK_BYTES // (64 * (self.depth + 1)))
        for start in range(0, queries, step):
            rows = slice(start, min(start + step, queries))
            began = time.perf_counter()
            candidates = self.candidates(rows, Setting(nprobe, self.depth))
            seconds += time.perf_counter() - began
            columns = columns_of(candidates, truth.ids[rows])
            for level, right in self.right.items():
                good = self.good(level, candidates, columns, rows)
                sums[level] += right.shares(good.cumsum(axis=1), rows).sum(axis=0)
                if level == self.k:
                    inside += float(self.reachable(good, columns, rows, nprobe).sum())
        curves = {level: total / queries for level, total in sums.items()}
        return Scan(nprobe, curves, inside / queries, seconds / queries)

    def candidates(self, rows: slice, setting: Setting) -> Ids:
        """What the index gives for a slice of the queries, themselves left out: (n, rerank)."""
        found, _ = self.searcher.index.candidates(
            self.truth.queries[rows],
            setting.nprobe,
            min(setting.rerank + 1, self.searcher.count),  # one more: it may be the query
        )
        return without_own(found, self.truth.query_ids[rows], setting.rerank)

    def good(self, level: int, candidates: Ids, columns: Counts, rows: slice) -> Flags:
        """Which candidates (n, m) of a slice of the queries count for recall@level.

        Ties that run on beyond the known neighbours are looked for at k alone; elsewhere they are
        not worth the reading.
        """
        right = self.right[level]
        good: Flags = columns < right.width[rows, None]
        if level == self.k and right.unsettled[rows].any():
            open_ = np.flatnonzero(right.unsettled[rows])
            queries = np.arange(len(right.there))[rows][open_]
            scores = self.searcher.index.exact_scores(
                self.truth.queries[queries], candidates[open_]
            )
            good[open_] |= (candidates[open_] >= 0) & right.good(scores, queries)
        return good

    def reachable(self, good: Flags, columns: Counts, rows: slice, nprobe: int) -> Shares:
        """The recall@k (n,) that perfect codes would have in the lists scanned."""
        right = self.right[self.k]
        scanned = self.searcher.index.probed(self.truth.queries[rows], nprobe)
        probed = in_rows(self._lists[rows], scanned, self.searcher.spec.nlist)
        return right.shares(reachable(good, columns, probed, right.width[rows]), rows)


def _lists_of(searcher: Searcher, truth: ExactNeighbours, width: Counts) -> Ids:
    """The list of each known neighbour that counts, (q, k); -1 for the others."""
    lists = np.full(truth.ids.shape, -1, dtype=np.int64)
    wanted = np.arange(truth.k) < width[:, None]
    distinct = np.unique(truth.ids[wanted])
    found = np.concatenate(
        [
            np.zeros(0, np.int64),
            *(
                searcher.index.lists_of(distinct[start : start + _ROWS_AT_ONCE])
                for start in range(0, len(distinct), _ROWS_AT_ONCE)
            ),
        ]
    )
    lists[wanted] = found[np.searchsorted(distinct, truth.ids[wanted])]
    return lists
