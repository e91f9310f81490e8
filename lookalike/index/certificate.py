"""The certificate: recall measured over settings before publication, and the setting chosen by it.

The queries are rows of the store, held out from training, each left out of its own answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.index.metrics import top_k
from lookalike.index.recall import ExactNeighbours, interval, recall_at_k
from lookalike.search import Searcher

_DEPTHS = ((1, 2, 5, 10, 20), (50, 100))  # per k; the second only where the first do not do
_RERANK_COST = 500  # reading and scoring one stored vector, in codes scanned

Shares = npt.NDArray[np.float64]


def certify(
    searcher: Searcher, truth: ExactNeighbours, k: int = 10, target: float = 0.95
) -> dict[str, Any]:
    """Measure recall over settings and choose the cheapest whose lower bound reaches the target.

    nprobe runs over the powers of two, to one beyond the first that reaches the target, at most all
    lists; the re-ranking depth over multiples of k, larger ones only where all lists do not
    suffice. An exact index has one setting, measured all the same. "Cheapest" counts codes scanned
    and vectors read, not time, so that the choice is the same on every run.

    Args:
        searcher: The snapshot, which need not be published.
        truth: The queries and their exact neighbours, with truth.k >= k; more let recall@100 be
            measured.
        k: The recall that is certified.
        target: What its lower bound should reach.

    Returns:
        k, target, recall, low, high, queries, population, nprobe, rerank (the chosen setting),
        reached (whether low >= target) and sweep: a list of settings with nprobe, rerank, recall,
        low, high, ms (per query) and further recall@1, recall@10, recall@100 where k or the depth
        allow. With no other row to find, recall is 1.
    """
    if not 1 <= k <= truth.k:
        raise ValueError(f"recall@{k} needs {k} true neighbours per query, there are {truth.k}")
    population = max(searcher.rows, len(truth.query_ids))
    sweep = _sweep(searcher, truth, k, target, population)
    codes_per_probe = searcher.rows / searcher.spec.nlist
    chosen = choose(
        [
            {**row, "cost": codes_per_probe * row["nprobe"] + _RERANK_COST * row["rerank"]}
            for row in sweep
        ],
        target,
    )
    kept = {name: chosen[name] for name in ("recall", "low", "high", "nprobe", "rerank")}
    return {
        "k": k, "target": target, **kept, "reached": chosen["low"] >= target,
        "queries": len(truth.query_ids), "population": population, "sweep": sweep,
    }  # fmt: skip


def choose(sweep: Sequence[Mapping[str, Any]], target: float) -> Mapping[str, Any]:
    """The cheapest setting whose lower bound reaches the target, else the best one.

    Args:
        sweep: Settings with `low` and `cost`.
        target: Recall to reach.
    """
    if not sweep:
        raise ValueError("nothing was measured, so nothing can be chosen")
    reached = [setting for setting in sweep if setting["low"] >= target]
    if reached:
        return min(reached, key=lambda setting: (setting["cost"], -setting["low"]))
    return min(sweep, key=lambda setting: (-setting["low"], setting["cost"]))


def _sweep(
    searcher: Searcher, truth: ExactNeighbours, k: int, target: float, population: int
) -> list[dict[str, Any]]:
    """Settings with their recall, with ever more effort until one step beyond the target."""
    probes, depth_groups = _settings(searcher, k)
    sweep: list[dict[str, Any]] = []
    for depths in depth_groups:
        reached = False
        for nprobe in probes:
            for depth, shares, seconds in _measure(searcher, truth, k, nprobe, depths):
                sweep.append(_row(nprobe, depth, k, shares, seconds, population))
            if reached:  # one step further than needed, to show what more would bring
                break
            reached = any(row["low"] >= target for row in sweep)
        if reached:
            break
    return sweep


def _settings(searcher: Searcher, k: int) -> tuple[list[int], list[list[int]]]:
    """Settings to try: nprobe, and groups of re-ranking depths."""
    if searcher.spec.kind == "exact":
        return [1], [[max(1, min(searcher.default_rerank(k), searcher.rows))]]
    nlist = searcher.spec.nlist
    probes = [1 << power for power in range(nlist.bit_length()) if 1 << power < nlist] + [nlist]
    groups: list[list[int]] = []
    for group in _DEPTHS:
        depths = {min(k * times, searcher.rows) for times in group}
        groups.append(sorted(depths.difference(*groups)))
    return probes, [group for group in groups if group]


def _row(
    nprobe: int, depth: int, k: int, shares: Mapping[int, Shares], seconds: float, population: int
) -> dict[str, Any]:
    """One line of the sweep."""
    means = {at: float(each.mean()) if len(each) else 1.0 for at, each in shares.items()}
    queries = len(shares[k])
    low, high = interval(means[k], queries, population)
    row = {
        "nprobe": nprobe, "rerank": depth, "recall": round(means[k], 6), "low": round(low, 6),
        "high": round(high, 6), "ms": round(1000 * seconds / max(1, queries), 4),
    }  # fmt: skip
    return {**row, **{f"recall@{at}": round(mean, 6) for at, mean in means.items()}}


def _measure(
    searcher: Searcher, truth: ExactNeighbours, k: int, nprobe: int, depths: Sequence[int]
) -> list[tuple[int, dict[int, Shares], float]]:
    """Recall per query at each depth, with the seconds that all queries took.

    Candidates of the largest depth are scanned and scored once, for all depths.
    """
    levels = sorted({k, *(at for at in (1, 10, 100) if at <= truth.k)})
    deepest = depths[-1] + 1  # the query itself may be among the candidates
    collected: dict[int, dict[int, list[Shares]]] = {
        depth: {at: [] for at in levels if at <= max(k, depth)} for depth in depths
    }
    scanning = ranking = 0.0
    step = searcher.index.queries_at_once(deepest)
    for start in range(0, len(truth.queries), step):
        rows = slice(start, start + step)
        queries, own = truth.queries[rows], truth.query_ids[rows, None]
        began = time.perf_counter()
        candidates, _ = searcher.index.candidates(queries, nprobe, min(deepest, searcher.rows))
        scanning += time.perf_counter() - began
        candidates = np.where(candidates == own, -1, candidates)
        # The query's own place closes, so that `depth` candidates are `depth` others.
        candidates = np.take_along_axis(
            candidates, np.argsort(candidates < 0, axis=1, kind="stable"), axis=1
        )
        began = time.perf_counter()
        scores = searcher.index.exact_scores(queries, candidates)
        ranking += time.perf_counter() - began
        for depth, by_level in collected.items():
            ids, exact = top_k(candidates[:, :depth], scores[:, :depth], max(levels), truth.metric)
            for at, shares in by_level.items():
                shares.append(
                    recall_at_k(ids, exact, truth.ids[rows], truth.scores[rows], at, truth.metric)
                )
    empty = [np.empty(0)]
    return [
        (
            depth,
            {at: np.concatenate(shares or empty) for at, shares in by_level.items()},
            scanning + ranking * depth / deepest,
        )
        for depth, by_level in collected.items()
    ]
