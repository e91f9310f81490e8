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

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lookalike.exact_neighbours import interval
from lookalike.recall.answers import Shares
from lookalike.recall.asking import Answer, Question, Trial, levels_of

# What one more list and one more re-ranked vector cost, in codes scanned. Costs are counted and not
# timed, so that every run on the same data chooses the same setting. The ratios are those measured
# with 113,000 vectors of 512 components and 4-bit codes of 32 bytes on two cores: 4 ns for a code,
# 2 us for a list, 6 us for a vector read and scored.
LIST_COST = 500
VECTOR_COST = 1500

NEGLIGIBLE = 0.002  # of recall, where the target is out of reach anyway

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
    """Scans with ever more lists, for one set of queries."""

    def __init__(self, trial: Trial, k: int, target: float, depth: int) -> None:
        """Nothing is scanned yet."""
        self.trial, self.k, self.target = trial, k, target
        self.depth = max(1, min(depth, trial.rows))
        self.levels = levels_of(trial.truth, k)
        self.population = max(trial.rows, self.queries)
        self.scans: dict[int, Scan] = {}
        self._asked: dict[int, Scan] = {}

    @property
    def queries(self) -> int:
        """How many there are."""
        return len(self.trial.truth.query_ids)

    def bounds(self, recall: float) -> tuple[float, float]:
        """Interval of a mean over the queries."""
        return interval(recall, self.queries, self.population)

    def cost(self, setting: Setting) -> float:
        """What a query costs, in codes scanned."""
        per_list = self.trial.rows / self.trial.spec.nlist + LIST_COST
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
        for place, nprobe in enumerate(steps):
            if reaching > 1 and self._cannot_win(nprobe, shallowest):
                break
            scan = self._scan(nprobe, steps[place:])
            if self.cheapest(shallowest) is not None:
                reaching += 1
            elif 1 - scan.reachable < NEGLIGIBLE and not self._reaches(
                scan.curves[self.k][-1] + 1 - scan.reachable
            ):
                break
        for _ in range(_REFINEMENTS if reaching else 0):
            between = self._between(shallowest)
            for nprobe in between:
                if not self._cannot_win(nprobe, shallowest):
                    self._scan(nprobe, between)

    def _scan(self, nprobe: int, soon: Sequence[int]) -> Scan:
        """Recall with so many lists, at every depth.

        Args:
            nprobe: The lists.
            soon: What is likely to be wanted as well: it counts only when it is.
        """
        if nprobe not in self._asked:
            wave = [one for one in dict.fromkeys([nprobe, *soon]) if one not in self._asked]
            wave = wave[: self.trial.at_once]
            answers = self.trial.ask([Question(one, self.depth, self.levels) for one in wave])
            for one, found in zip(wave, answers, strict=True):
                self._asked[one] = self._summed(one, found)
        return self.scans.setdefault(nprobe, self._asked[nprobe])

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

    def _summed(self, nprobe: int, answers: Sequence[Answer]) -> Scan:
        queries = self.queries
        if not queries:
            return Scan(nprobe, {level: np.ones(self.depth) for level in self.levels}, 1.0, 0.0)
        sums = {level: np.zeros(self.depth) for level in self.levels}
        inside = seconds = 0.0
        for answer in answers:
            for level in self.levels:
                sums[level] += np.array(answer["sums"][str(level)])
            inside += answer["inside"]
            seconds += answer["seconds"]
        curves = {level: total / queries for level, total in sums.items()}
        return Scan(nprobe, curves, inside / queries, seconds / queries)
