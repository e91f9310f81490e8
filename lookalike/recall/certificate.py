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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lookalike.exact_neighbours import interval
from lookalike.recall.advice import advise
from lookalike.recall.asking import Question, Trial
from lookalike.recall.sweep import LIST_COST, VECTOR_COST, Scan, Setting, Sweeper
from lookalike.search.reranking import exact_depth
from lookalike.store.manifest import Certificate, Level, SweepRow

DEPTHS = (1, 2, 5, 10, 20, 50, 100)  # per k, that are written down
READS = 2_000_000  # vectors to read for one level; fewer queries are asked where it takes more
_RETRIES = 20
_WIDER = (1, 3)  # times the parent's setting, to look for one that reaches the target
_FEW_READS = 100_000  # of vectors, for recall@100 where a little was added


def choose(trial: Trial, k: int, target: float, before: tuple[int, int] | None) -> Certificate:
    """`certify`; near the setting (nprobe, rerank) that did before, where there is one.

    A little more of the same changes little: that setting mostly does.
    """
    lists, most = before or (0, 0)
    for wider in _WIDER if before else ():
        found = certify(
            trial,
            k,
            target,
            min_nprobe=lists,
            max_nprobe=wider * lists,
            max_rerank=max(wider * most, trial.truth.k),
            reads=_FEW_READS,
        )
        if found["reached"]:
            return found
    return certify(trial, k, target)


def certify(
    trial: Trial,
    k: int = 10,
    target: float = 0.95,
    *,
    min_nprobe: int = 1,
    max_nprobe: int | None = None,
    max_rerank: int | None = None,
    reads: int = READS,
) -> Certificate:
    """Measure recall over settings and choose the cheapest whose lower bound reaches the target.

    nprobe runs over the powers of two, to one beyond the first that reaches the target, then over
    steps between; every re-ranking depth from k to 100 k is looked at. An exact index has one
    setting, measured all the same. "Cheapest" counts codes scanned and vectors read, not time, so
    that the choice is the same on every run. The setting chosen is then measured as a search works,
    with stored vectors read and scored.

    Args:
        trial: The index, and queries whose neighbours are known; for recall@k.
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
    spec = trial.spec
    # 1. Recall over nprobe and depth, from the order of candidates alone.
    deepest, shallowest = _depths(trial, k, max_rerank)
    sweeper = Sweeper(trial, k, target, deepest)
    sweeper.run(min(max_nprobe or spec.nlist, spec.nlist), shallowest, min_nprobe)
    # 2. and 3. The cheapest setting that reaches the target, measured with stored vectors.
    chosen, measured = _choose(sweeper, shallowest)
    recall, low, high = _bounded(sweeper, measured.after[k])
    found: Certificate = {
        "k": k,
        "target": target,
        "recall": recall,
        "low": low,
        "high": high,
        "queries": sweeper.queries,
        "population": sweeper.population,
        "nprobe": chosen.nprobe,
        "rerank": chosen.rerank,
        "reached": low >= target,
        "levels": _levels(sweeper, chosen, measured, reads),
        "losses": _losses(measured.reachable, measured.candidates, recall),
        "weights": {"list": LIST_COST, "vector": VECTOR_COST},
        "sweep": _rows(sweeper, chosen, shallowest, measured.seconds),
    }
    found["advice"] = advise(found, spec)
    return found


def _depths(trial: Trial, k: int, most: int | None) -> tuple[int, int]:
    """The deepest and the shallowest re-ranking to look at."""
    rows = max(1, trial.rows)
    if trial.spec.kind == "exact":
        depth = min(rows, exact_depth(trial.spec.metric, trial.rows, k))
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
    stride = max(1, -(-sweeper.queries * setting.rerank // reads))
    question = Question(setting.nprobe, setting.rerank, tuple(levels), exact=True, stride=stride)
    [answers] = sweeper.trial.ask([question])
    queries = sum(len(one["kept"]) for one in answers)
    return _Measured(
        queries,
        {level: _mean([one["before"][str(level)] for one in answers]) for level in levels},
        {level: _mean([one["after"][str(level)] for one in answers]) for level in levels},
        _mean([one["kept"] for one in answers]),
        _mean([one["inside"] for one in answers]),
        sum(one["seconds"] for one in answers) / max(1, queries * setting.rerank),
    )


def _mean(shares: Sequence[Sequence[float]]) -> float:
    return float(np.concatenate(shares).mean()) if shares else 1.0


def _levels(sweeper: Sweeper, chosen: Setting, measured: _Measured, reads: int) -> list[Level]:
    """recall@1, @10, @100 and @k before and after re-ranking, each as a search for so many works.

    A search for more than k neighbours re-ranks more candidates in proportion
    (`Searcher.default_rerank`). If the lists scanned hold fewer rows than it needs, a search goes
    on to further lists. This measurement does not, so the recall given here may be a little low.
    """
    trial, k = sweeper.trial, sweeper.k
    output: list[Level] = []
    for level in sweeper.levels:
        setting, found = chosen, measured
        if level > k:
            deeper = -(-level * chosen.rerank // k)
            if trial.spec.kind == "exact":
                deeper = exact_depth(trial.spec.metric, trial.rows, level)
            setting = Setting(chosen.nprobe, min(deeper, max(1, trial.rows)))
            found = _measure(sweeper, setting, [level], reads)
        output.append(
            {
                "k": level,
                "rerank": setting.rerank,
                "queries": found.queries,
                "before": _bounded(sweeper, found.before[level], found.queries),
                "after": _bounded(sweeper, found.after[level], found.queries),
            }
        )
    return output


def _rows(sweeper: Sweeper, chosen: Setting, shallowest: int, seconds: float) -> list[SweepRow]:
    """The sweep as it is written down: some depths of every nprobe, and the least that will do."""
    rows: list[SweepRow] = []
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
                    "nprobe": nprobe,
                    "rerank": depth,
                    "recall": recall,
                    "low": low,
                    "high": high,
                    "cost": round(sweeper.cost(Setting(nprobe, depth))),
                    "ms": round(1000 * (scan.seconds + depth * seconds), 4),
                    "coarse_miss": losses["coarse_miss"],
                    "code_error": losses["code_error"],
                    "before": _at_levels(sweeper, scan, sweeper.depth, before=True),
                    "after": _at_levels(sweeper, scan, depth, before=False),
                }
            )
    return rows


def _at_levels(sweeper: Sweeper, scan: Scan, depth: int, *, before: bool) -> dict[str, list[float]]:
    """Recall of the levels that candidates so deep have room for, with bounds."""
    everything = depth >= sweeper.trial.rows
    return {
        str(level): _bounded(sweeper, curve[(min(level, depth) if before else depth) - 1])
        for level, curve in scan.curves.items()
        if level <= depth or everything
    }


def _bounded(sweeper: Sweeper, recall: float, queries: int | None = None) -> list[float]:
    """[recall, low, high], rounded."""
    asked = sweeper.queries if queries is None else queries
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
    return {
        "coarse_miss": round(1 - reachable, 6),
        "code_error": round(reachable - candidates, 6),
        "final": round(candidates - recall, 6),
    }
