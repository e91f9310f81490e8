"""`python -m benchmarks`: the speed of the stages here, each beside a plain way to do it.

decode   lookalike.images.preparing on one core         beside Pillow's open, convert, resize
embed    the whole stage, all processes       beside bare processes, and hub.load with tf.data
search   Searcher.search_vectors              beside numpy's brute force

Baselines run in turn with what they are compared with, so that a slow or busy machine tells on
both. What is reported is the ratio; the rest is its evidence.
"""

from __future__ import annotations

import pickle
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.command import arguments, run, versions

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

    def to_json(self) -> dict[str, Any]:
        """With the medians, and how many times as fast ours is."""
        ours, baseline = median(self.rates), median(self.baseline_rates)
        return {**self.__dict__, "rate": ours, "baseline_rate": baseline, "ratio": ours / baseline}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the JSON file if asked."""
    parser = arguments("benchmarks", __doc__)
    parser.add_argument("--images", metavar="SRC", help="pictures to use (default: drawn ones)")
    parser.add_argument("--config", metavar="F", help="YAML file (default: shipped descriptor)")
    parser.add_argument("--files", type=int, default=0, help="pictures to embed (1000)")
    parser.add_argument("--rounds", type=int, default=3, help="at least 2 (3)")
    given = parser.parse_args(argv)
    if given.rounds < 2 or (given.files and given.files < 100):
        parser.error("--rounds must be at least 2 and --files at least 100")
    return run("bench", given, measure, table)


def measure(given: Namespace) -> dict[str, Any]:
    """Everything that is to be told, as the JSON file has it."""
    from benchmarks.launch import WAYS, least_files, make_task, measure_way
    from benchmarks.pictures import gather
    from benchmarks.task import pillow
    from lookalike.models.resolving import DEFAULT_FEATURES
    from lookalike.pipelines.config import Config, load_config
    from lookalike.pipelines.runner import cores

    config = load_config(given.config) if given.config else Config(DEFAULT_FEATURES)
    rows: dict[str, Row] = {}
    with TemporaryDirectory(prefix="lookalike-bench-") as folder:
        work = Path(folder)
        count = given.files or max(1000, 2 * least_files(config.runner.processes))
        files = gather(given.images, count, work / "pictures").paths
        task = make_task(config, files, work)
        stage = f"{WAYS['pipeline']}, {task.processes} processes"
        ours, plain = "lookalike.images.preparing", "Pillow open, convert, resize"
        decode = Row("decode", ours, plain, "images/s/core")
        embed = {way: Row("embed", stage, WAYS[way], "images/s") for way in ("bare", "hub")}
        for number in range(given.rounds):
            rates = _in_turn(
                files[:DECODED],
                task.prepare,
                lambda path: [pillow(path.read_bytes(), size) for size in task.sizes],
            )
            decode.rates.append(rates[0])
            decode.baseline_rates.append(rates[1])
            # The first round as configured, the others with a compressed index.
            forced = {**config.index, "kind": "ivf_pq"} if number else config.index
            indexed = replace(task, config=pickle.dumps(replace(config, index=forced)))
            place = work / f"round-{number}"
            place.mkdir()
            pipeline = measure_way("pipeline", indexed, place / "pipeline")
            for way, row in embed.items():
                row.rates.append(pipeline.rate)
                row.baseline_rates.append(measure_way(way, task, place / way).rate)
                row.notes["start_up_s"] = pipeline.stage_start_up_s or 0.0
            _search(place / "pipeline" / "store", number, rows)
    return {
        "handles": " + ".join(feature.handle for feature in config.features),
        "files": len(files),
        "rounds": given.rounds,
        "cores": cores(),
        **versions(),
        "rows": [row.to_json() for row in (decode, *embed.values(), *rows.values())],
    }


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


def _search(store: Path, seed: int, rows: dict[str, Row]) -> None:
    """Queries/s on a store just built, and recall@10 against all of its vectors."""
    import lookalike
    from lookalike.exact_neighbours import recall_at_k
    from lookalike.store import snapshot
    from lookalike.store.shards import iter_blocks

    searcher = lookalike.open(store)
    shards = [line["path"] for line in snapshot.files_of(searcher.manifest, "embedding")]
    blocks = [block for shard in shards for block in iter_blocks(store / shard)]
    ids, vectors = (np.concatenate(column) for column in zip(*blocks, strict=True))
    queries = np.random.default_rng(seed).choice(vectors, min(QUERIES, len(vectors)), replace=False)
    ours = f"{searcher.spec.kind}, {len(ids):,} vectors"
    row = rows.setdefault(ours, Row("search", ours, "numpy brute force in memory", "queries/s"))
    found = searcher.search_vectors(queries, K)  # the first reads files
    true = _brute_force(queries, ids, vectors, searcher.metric)
    recall = float(recall_at_k(*found, *true, K, searcher.metric).mean())
    row.notes.setdefault(f"recall@{K}", recall)
    for _ in range(SEARCHES):
        began = perf_counter()
        searcher.search_vectors(queries, K)
        row.rates.append(len(queries) / (perf_counter() - began))
        began = perf_counter()
        _brute_force(queries, ids, vectors, searcher.metric)
        row.baseline_rates.append(len(queries) / (perf_counter() - began))


def _brute_force(queries: Any, ids: Any, vectors: Any, metric: str) -> tuple[Any, Any]:
    from lookalike.distances import better_is_higher, score

    inner = metric in ("cosine", "inner_product")  # stored vectors have unit length under cosine
    scores = queries @ vectors.T if inner else score(queries, vectors, metric)
    order = -scores if better_is_higher(metric) else scores
    nearest = np.argpartition(order, min(K, len(ids)) - 1, axis=1)[:, :K]
    rank = np.argsort(np.take_along_axis(order, nearest, axis=1), axis=1, kind="stable")
    nearest = np.take_along_axis(nearest, rank, axis=1)
    return ids[nearest], np.take_along_axis(scores, nearest, axis=1)


def table(document: dict[str, Any]) -> str:
    """What was measured, and a line for each comparison."""
    lines = [
        "{handles}: {files:,} pictures, {rounds} rounds, {cores} cores, medians".format(**document)
    ]
    for row in document["rows"]:
        notes = ", ".join(f"{name} {value:.3g}" for name, value in row["notes"].items())
        lines.append(
            f"{row['stage']:7} {row['ratio']:6.2f}x  {row['ours']} {row['rate']:,.0f} beside "
            f"{row['baseline']} {row['baseline_rate']:,.0f} {row['unit']}"
            f"{f' ({notes})' if notes else ''}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
