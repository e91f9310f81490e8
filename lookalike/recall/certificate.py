"""The certificate: recall measured over settings before publication, and the setting chosen by it.

The queries are rows of the store that training did not see. Each is left out of its own answer.

1. `Sweeper` scans with 1, 2, 4, ... lists and computes the recall at every re-ranking depth.
2. Of the settings whose lower bound reaches the target, the cheapest is chosen.
3. That setting is measured once more the way a search works, with stored vectors.
4. What is missing is split by where it was lost: in lists that were not scanned, by codes, or at
   the end.

The bounds are those of a mean over the queries. For example, 1,000 queries out of a million rows
with a mean recall@10 of 0.965 give 0.952 to 0.975. A target of 0.95 is then reached, one of 0.96
is not, though the mean is above both. If all rows were queries, both bounds would be 0.965.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lookalike.exact_neighbours import ExactNeighbours, interval, recall_at_k
from lookalike.metrics import top_k
from lookalike.recall.advice import advise
from lookalike.recall.answers import Shares, columns_of
from lookalike.recall.sweep import LIST_COST, VECTOR_COST, Scan, Setting, Sweeper
from lookalike.search.searcher import Searcher

DEPTHS = (1, 2, 5, 10, 20, 50, 100)  # per k, that are written down
READS = 2_000_000  # vectors to read for one level; fewer queries are asked where it takes more
_RETRIES = 20


def certify(
    searcher: Searcher,
    truth: ExactNeighbours,
    k: int = 10,
    target: float = 0.95,
    *,
    min_nprobe: int = 1,
    max_nprobe: int | None = None,
    max_rerank: int | None = None,
    reads: int = READS,
) -> dict[str, Any]:
    """Measure recall over settings and choose the cheapest whose lower bound reaches the target.

    nprobe runs over the powers of two, to one beyond the first that reaches the target, then over
    steps between; every re-ranking depth from k to 100 k is looked at. An exact index has one
    setting, measured all the same. "Cheapest" counts codes scanned and vectors read, not time, so
    that the choice is the same on every run. The setting chosen is then measured as a search works,
    with stored vectors read and scored.

    Args:
        searcher: The snapshot, which need not be published.
        truth: The queries and their exact neighbours, with truth.k >= k; more let recall@100 be
            measured.
        k: The recall that is certified.
        target: What its lower bound should reach.
        min_nprobe: Lists to scan at least.
        max_nprobe: Lists to scan at most; all of them by default.
        max_rerank: Candidates to score exactly at most; 100 k by default.
        reads: Vectors to read for a level above k at most: fewer queries are asked where it would
            take more.

    Returns:
        k, target, recall, low, high, queries, population, nprobe, rerank (the chosen setting),
        reached (whether low >= target), levels, losses, weights, advice and sweep; docs/json.md
        has what is in them. With no other row to find, recall is 1.
    """
    if not 1 <= k <= truth.k:
        raise ValueError(f"recall@{k} needs {k} true neighbours per query, there are {truth.k}")
    spec = searcher.spec
    # 1. Recall over nprobe and depth, from the order of candidates alone.
    deepest, shallowest = _depths(searcher, k, max_rerank)
    sweeper = Sweeper(searcher, truth, k, target, deepest)
    sweeper.run(min(max_nprobe or spec.nlist, spec.nlist), shallowest, min_nprobe)
    # 2. and 3. The cheapest setting that reaches the target, measured with stored vectors.
    chosen, measured = _choose(sweeper, shallowest)
    recall, low, high = _bounded(sweeper, measured.after[k])
    found: dict[str, Any] = {
        "k": k, "target": target, "recall": recall, "low": low, "high": high,
        "queries": len(truth.query_ids), "population": sweeper.population,
        "nprobe": chosen.nprobe, "rerank": chosen.rerank, "reached": low >= target,
        "levels": _levels(sweeper, chosen, measured, reads),
        "losses": _losses(measured.reachable, measured.candidates, recall),
        "weights": {"list": LIST_COST, "vector": VECTOR_COST},
        "sweep": _rows(sweeper, chosen, shallowest, measured.seconds),
    }  # fmt: skip
    return {**found, "advice": advise(found, spec)}


def _depths(searcher: Searcher, k: int, most: int | None) -> tuple[int, int]:
    """The deepest and the shallowest re-ranking to look at."""
    rows = max(1, searcher.count)
    if searcher.spec.kind == "exact":
        depth = min(rows, searcher.default_rerank(k))
        return depth, depth
    return min(rows, max(k, most or DEPTHS[-1] * k)), min(rows, k)


@dataclass(frozen=True)
class _Measured:
    """One setting, measured the way a search works, and the recall possible after each step.

    Attributes:
        queries: Asked.
        before: Mean recall by level, in the order of the codes.
        after: The same after re-ranking.
        candidates: Mean recall@k if the candidates were ranked without error.
        reachable: Mean recall@k if all rows of the lists scanned were ranked without error.
        seconds: Reading and scoring one vector.
    """

    queries: int
    before: Mapping[int, float]
    after: Mapping[int, float]
    candidates: float
    reachable: float
    seconds: float


def _choose(sweeper: Sweeper, shallowest: int) -> tuple[Setting, _Measured]:
    """The cheapest setting that reaches the target when measured, else that of most recall."""
    levels = [level for level in sweeper.levels if level <= sweeper.k]
    failed: dict[int, int] = {}
    # Candidates of equal approximate score may come in another order at another depth. Then the
    # measurement can fall just short of what the sweep promised, and a little more depth is tried.
    for _ in range(_RETRIES):
        setting = sweeper.cheapest(shallowest, failed)
        if setting is None:
            break
        measured = _measure(sweeper, setting, levels)
        if _bounded(sweeper, measured.after[sweeper.k])[1] >= sweeper.target:
            return setting, measured
        failed[setting.nprobe] = setting.rerank + setting.rerank // 20
    setting = sweeper.best(shallowest)
    return setting, _measure(sweeper, setting, levels)


def _measure(
    sweeper: Sweeper, setting: Setting, levels: list[int], reads: int = READS
) -> _Measured:
    """Recall at one setting, by exact scores of stored vectors."""
    truth, index, k = sweeper.truth, sweeper.searcher.index, sweeper.k
    stride = max(1, -(-len(truth.queries) * setting.rerank // reads))
    before: dict[int, list[Shares]] = {level: [] for level in levels}
    after: dict[int, list[Shares]] = {level: [] for level in levels}
    kept: list[Shares] = []
    inside: list[Shares] = []
    seconds = 0.0
    for rows in _slices(len(truth.queries), index.queries_at_once(setting.rerank), stride):
        candidates = sweeper.candidates(rows, setting)
        began = time.perf_counter()
        scores = index.exact_scores(truth.queries[rows], candidates)
        seconds += time.perf_counter() - began
        ids, best = top_k(candidates, scores, max(levels), truth.metric)
        known = truth.ids[rows], truth.scores[rows]
        for level in levels:
            after[level].append(recall_at_k(ids, best, *known, level, truth.metric))
            before[level].append(recall_at_k(candidates, scores, *known, level, truth.metric))
        columns = columns_of(candidates, truth.ids[rows])
        right = sweeper.right[k]
        good = (columns < right.width[rows, None]) | ((candidates >= 0) & right.good(scores, rows))
        kept.append(right.shares(good.sum(axis=1), rows))
        inside.append(sweeper.reachable(good, columns, rows, setting.nprobe))
    queries = sum(map(len, kept))
    return _Measured(
        queries,
        {level: _mean(shares) for level, shares in before.items()},
        {level: _mean(shares) for level, shares in after.items()},
        _mean(kept),
        _mean(inside),
        seconds / max(1, queries * setting.rerank),
    )


def _slices(count: int, step: int, stride: int) -> Iterator[slice]:
    """Slices of `step` queries, every `stride`-th of `count`."""
    for start in range(0, count, step * stride):
        yield slice(start, min(start + step * stride, count), stride)


def _mean(shares: list[Shares]) -> float:
    return float(np.concatenate(shares).mean()) if shares else 1.0


def _levels(
    sweeper: Sweeper, chosen: Setting, measured: _Measured, reads: int
) -> list[dict[str, Any]]:
    """recall@1, @10, @100 and @k before and after re-ranking, each as a search for so many works.

    A search for more than k neighbours re-ranks more candidates in proportion
    (`Searcher.default_rerank`). If the lists scanned hold fewer rows than it needs, a search goes
    on to further lists. This measurement does not, so the recall given here may be a little low.
    """
    searcher, k = sweeper.searcher, sweeper.k
    output = []
    for level in sweeper.levels:
        setting, found = chosen, measured
        if level > k:
            exact = searcher.spec.kind == "exact"
            deeper = searcher.default_rerank(level) if exact else -(-level * chosen.rerank // k)
            setting = Setting(chosen.nprobe, min(deeper, max(1, searcher.count)))
            found = _measure(sweeper, setting, [level], reads)
        output.append(
            {
                "k": level, "rerank": setting.rerank, "queries": found.queries,
                "before": _bounded(sweeper, found.before[level], found.queries),
                "after": _bounded(sweeper, found.after[level], found.queries),
            }
        )  # fmt: skip
    return output


def _rows(
    sweeper: Sweeper, chosen: Setting, shallowest: int, seconds: float
) -> list[dict[str, Any]]:
    """The sweep as it is written down: some depths of every nprobe, and the least that will do."""
    rows = []
    for nprobe in sorted(sweeper.scans):
        scan = sweeper.scans[nprobe]
        depths = {min(max(sweeper.k * times, shallowest), sweeper.depth) for times in DEPTHS}
        enough = sweeper.enough(nprobe, shallowest)
        depths |= {enough} if enough else set()
        depths |= {chosen.rerank} if chosen.nprobe == nprobe else set()
        for depth in sorted(depths):
            recall, low, high = _bounded(sweeper, scan.curves[sweeper.k][depth - 1])
            losses = _losses(scan.reachable, recall, recall)
            rows.append(
                {
                    "nprobe": nprobe, "rerank": depth, "recall": recall, "low": low, "high": high,
                    "cost": round(sweeper.cost(Setting(nprobe, depth))),
                    "ms": round(1000 * (scan.seconds + depth * seconds), 4),
                    "coarse_miss": losses["coarse_miss"], "code_error": losses["code_error"],
                    "before": _at_levels(sweeper, scan, sweeper.depth, before=True),
                    "after": _at_levels(sweeper, scan, depth, before=False),
                }
            )  # fmt: skip
    return rows


def _at_levels(sweeper: Sweeper, scan: Scan, depth: int, *, before: bool) -> dict[str, list[float]]:
    """Recall of the levels that candidates so deep have room for, with bounds."""
    everything = depth >= sweeper.searcher.count
    return {
        str(level): _bounded(sweeper, curve[(min(level, depth) if before else depth) - 1])
        for level, curve in scan.curves.items()
        if level <= depth or everything
    }


def _bounded(sweeper: Sweeper, recall: float, queries: int | None = None) -> list[float]:
    """[recall, low, high], rounded."""
    asked = len(sweeper.truth.queries) if queries is None else queries
    low, high = interval(min(1.0, recall), asked, sweeper.population)
    return [round(float(value), 6) for value in (recall, low, high)]


def _losses(reachable: float, candidates: float, recall: float) -> dict[str, float]:
    """1 - recall, split into what each step of a search loses; the three parts sum to it.

    With recalls of 0.99 reachable in the lists scanned, 0.97 among the candidates and 0.965
    returned, 0.01 was lost by lists not scanned, 0.02 by codes, and 0.005 at the end.
    """
    recall = round(recall, 6)
    candidates = max(recall, round(candidates, 6))
    reachable = max(candidates, round(reachable, 6))
    steps = {
        "coarse_miss": 1 - reachable,
        "code_error": reachable - candidates,
        "final": candidates - recall,
    }
    return {name: round(value, 6) for name, value in steps.items()}
