"""What `benchmarks` measures: stages of lookalike, each beside a plain way to do it.

Baselines run in turn with what they are compared with, so that a slow or busy machine tells on
both. What is reported is the ratio; the rest is its evidence.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import lookalike
from benchmarks.launch import WAYS, make_task, measure_way
from benchmarks.pillow import pillow
from lookalike.exact_neighbours import recall_at_k
from lookalike.metrics import better_is_higher, score
from lookalike.pipelines.config import Config
from lookalike.store import snapshot
from lookalike.store.shards import iter_blocks

DECODED = 200  # pictures per measurement of decoding
QUERIES, K = 200, 10
SEARCHES = 5  # per round: one search takes milliseconds


@dataclass
class Row:
    """One comparison: rates of ours and of the baseline, a number per round."""

    stage: str
    ours: str
    baseline: str
    unit: str
    rates: list[float] = field(default_factory=list)
    baseline_rates: list[float] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return median(self.rates) / median(self.baseline_rates)

    def to_json(self) -> dict[str, Any]:
        """With the medians."""
        medians = {"rate": median(self.rates), "baseline_rate": median(self.baseline_rates)}
        return {**self.__dict__, **medians, "ratio": self.ratio}


def measure(config: Config, files: list[Path], rounds: int, work: Path) -> list[Row]:
    """Measure everything; `files` are pictures that can be decoded, all in one folder."""
    task = make_task(config, files, work)
    decode = Row(
        "decode", "lookalike.images.preparing", "Pillow open, convert, resize", "images/s/core"
    )
    ours = f"{WAYS['pipeline']}, {task.processes} processes"
    embed = {way: Row("embed", ours, WAYS[way], "images/s") for way in ("bare", "hub")}
    searches: dict[str, Row] = {}

    def plainly(path: Path) -> list[Any]:
        return [pillow(path.read_bytes(), size) for size in task.sizes]

    for number in range(rounds):
        rates = _in_turn(files[:DECODED], task.prepare, plainly)
        decode.rates.append(rates[0])
        decode.baseline_rates.append(rates[1])

        # The first round as configured, the others with a compressed index.
        forced = {**config.index, "kind": "ivf_pq"} if number else config.index
        indexed = replace(task, config=pickle.dumps(replace(config, index=forced)))
        folder = work / f"round-{number}"
        folder.mkdir()
        pipeline = measure_way("pipeline", indexed, folder / "pipeline")
        for way, row in embed.items():
            row.rates.append(pipeline.rate)
            row.baseline_rates.append(measure_way(way, task, folder / way).rate)
            row.notes["start_up_s"] = pipeline.stage_start_up_s or 0.0

        found = _search(folder / "pipeline" / "store", number)
        row = searches.setdefault(found.ours, found)
        if row is not found:
            row.rates += found.rates
            row.baseline_rates += found.baseline_rates
    return [decode, *embed.values(), *searches.values()]


def _in_turn(items: Sequence[Path], *ways: Callable[[Path], Any]) -> list[float]:
    """Items/s of each way, changing ways at every item, and who goes first."""
    seconds = [0.0] * len(ways)
    for number, item in enumerate(items):
        for step in range(len(ways)):
            way = (number + step) % len(ways)
            began = perf_counter()
            ways[way](item)
            seconds[way] += perf_counter() - began
    return [len(items) / spent for spent in seconds]


def _search(store: Path, seed: int) -> Row:
    """Queries/s on a store just built, and recall@10 against all of its vectors."""
    searcher = lookalike.open(store)
    shards = [line["path"] for line in snapshot.files_of(searcher.manifest, "embedding")]
    blocks = [block for shard in shards for block in iter_blocks(store / shard)]
    ids, vectors = (np.concatenate(column) for column in zip(*blocks, strict=True))
    queries = np.random.default_rng(seed).choice(vectors, min(QUERIES, len(vectors)), replace=False)
    ours = f"{searcher.spec.kind}, {len(ids):,} vectors"
    row = Row("search", ours, "numpy brute force in memory", "queries/s")
    found, exact = searcher.search_vectors(queries, K)  # the first reads files
    true, best = _brute_force(queries, ids, vectors, searcher.metric)
    recall = recall_at_k(found, exact, true, best, K, searcher.metric)
    row.notes[f"recall@{K}"] = float(recall.mean())
    for _ in range(SEARCHES):
        began = perf_counter()
        searcher.search_vectors(queries, K)
        row.rates.append(len(queries) / (perf_counter() - began))
        began = perf_counter()
        _brute_force(queries, ids, vectors, searcher.metric)
        row.baseline_rates.append(len(queries) / (perf_counter() - began))
    return row


def _brute_force(queries: Any, ids: Any, vectors: Any, metric: str) -> tuple[Any, Any]:
    inner = metric in ("cosine", "inner_product")  # stored vectors have unit length under cosine
    scores = queries @ vectors.T if inner else score(queries, vectors, metric)
    order = -scores if better_is_higher(metric) else scores
    nearest = np.argpartition(order, min(K, len(ids)) - 1, axis=1)[:, :K]
    rank = np.argsort(np.take_along_axis(order, nearest, axis=1), axis=1, kind="stable")
    nearest = np.take_along_axis(nearest, rank, axis=1)
    return ids[nearest], np.take_along_axis(scores, nearest, axis=1)
