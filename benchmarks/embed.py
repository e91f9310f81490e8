"""`python -m benchmarks.embed`: images/s of the embed stage beside other ways to do it.

pipeline      `lookalike index`, its embed stage, all processes
bare          as many plain processes with the same decode and engine: the pipeline's limit
hub           hub.load called batch by batch with a tf.data input, one process, all threads;
              builtin:photo as its network is in float32
runinference  Beam's RunInference, a hand-written handler with hub.load, Pillow in a Map
decode        as many plain processes that read, decode and resize, and embed nothing
pillow        the same with Pillow's open, convert and resize
model         as many plain processes that embed pictures decoded before

Each way runs in a process of its own, in turn within every round, the first changing from round to
round; medians over the rounds. Rates are of the time in which all processes are warm and busy: the
models are loaded, the first unit or batch is done, and none is at its end. Start-up is what the
rate does not explain of the time from a way's launch to its last picture. Memory is the sum over
its processes at the highest, shared pages counted for each. Cosine is the mean to the pipeline's
vectors. Decoding and models share the cores, so the most that both can make is what takes a picture
the time of the one and then of the other. No network is needed.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.command import arguments, at_least_one, chosen, columns, run, say, versions

_ALL = ("pipeline", "bare", "hub", "runinference", "decode", "pillow", "model")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the JSON file if asked."""
    parser = arguments("benchmarks.embed", __doc__)
    add = parser.add_argument
    add("--images", metavar="SRC", help="pictures to use (default: drawn ones)")
    add("--model", metavar="HANDLE", help="one feature (default: those of lookalike index)")
    add("--engine", default="auto", help="what computes the model (auto)")
    add("--files", type=int, default=0, help="pictures (2000, more on more than 10 cores)")
    add("--rounds", type=int, default=3, help="how often each way runs (3)")
    add("--workers", type=int, default=0, help="processes (0: one per core)")
    add("--ways", default=",".join(_ALL), metavar="WAY,…", help=f"of {', '.join(_ALL)} (all)")
    given = parser.parse_args(argv)
    given.ways = chosen(parser, given.ways, _ALL)
    at_least_one(parser, given, "rounds")
    return run("bench-embed", given, measure, table)


def measure(given: Namespace) -> dict[str, Any]:
    """Everything that is to be told, as the JSON file has it.

    Raises:
        RequestError: The request is wrong.
        WayError: A way failed.
    """
    from benchmarks.launch import WAYS, least_files, make_task, measure_round
    from benchmarks.pictures import gather
    from benchmarks.task import HAND_BATCH
    from lookalike.pipelines.config import parse_config
    from lookalike.pipelines.runner import cores

    asked: dict[str, Any] = {
        "engine": given.engine,
        "index": {"kind": "exact"},  # what follows the embed stage is not measured
        "runner": {"workers": given.workers},
    }
    if given.model:
        asked["features"] = [{"name": "model", "handle": given.model}]
    config = parse_config(asked, [])
    with TemporaryDirectory(prefix="lookalike-bench-") as folder:
        work = Path(folder)
        files = given.files or max(2000, 2 * least_files(config.runner.processes))
        pictures = gather(given.images, files, work / "pictures")
        task = make_task(config, pictures.paths, work)
        rounds = []
        for number in range(given.rounds):
            shift = number % len(given.ways)
            (work / f"round-{number}").mkdir()
            in_turn = [*given.ways[shift:], *given.ways[:shift]]
            say(f"round {number + 1} of {given.rounds}")
            rounds.append(measure_round(in_turn, task, work / f"round-{number}"))
    found: dict[str, Any] = {}
    for way in given.ways:
        runs = [asdict(each[way]) for each in rounds]
        medians = {name: median(one[name] for one in runs) for name in ("rate", "start_up_s")}
        ratio = (found or {way: medians})[given.ways[0]]["rate"] / medians["rate"]
        found[way] = {"title": WAYS[way][0], **medians, "pipeline_ratio": ratio, "rounds": runs}
    bound = None
    if {"decode", "model"} <= set(given.ways):
        bound = 1 / (1 / found["decode"]["rate"] + 1 / found["model"]["rate"])
    others = [one["engines"] for one in found["pipeline"]["rounds"]]
    return {
        "model": " + ".join(feature.handle for feature in task.features),
        "engine": ", ".join(str(feature.engine) for feature in task.features),
        "engine_changed": sum(engines != task.engines for engines in others),
        "input_sizes": task.sizes,
        "files": len(pictures.paths),
        "pictures": pictures.describe(),
        "rounds": given.rounds,
        "cores": cores(),
        "processes": task.processes,
        "threads": task.threads,
        "batch": task.batch,
        "hand_batch": HAND_BATCH,
        "versions": versions(),
        "bound": bound,
        "ways": found,
    }


def table(document: dict[str, Any]) -> str:
    """What was measured, and a line per way."""
    sizes = ", ".join(f"{height}x{width}" for height, width in document["input_sizes"])
    lines = [
        f"{document['model']} at {sizes}, engine {document['engine']}",
        f"{document['files']:,} pictures: {document['pictures']}",
        f"{document['cores']} cores: {document['processes']} processes of {document['threads']} "
        f"threads, batches of {document['batch']} ({document['hand_batch']} by hand); "
        f"{document['rounds']} rounds, medians",
        ", ".join(f"{name} {value}" for name, value in document["versions"].items()),
    ]
    if changed := document["engine_changed"]:
        lines.append(
            f"NOT COMPARABLE: in {changed} rounds the pipeline chose another engine than the other "
            "ways had; name one with --engine"
        )
    rows = [["", "images/s", "pipeline is", "start-up", "memory", "cosine"]]
    for way in document["ways"].values():
        peaks = [one["peak_bytes"] for one in way["rounds"] if one["peak_bytes"]]
        compared = [one["cosine"][0] for one in way["rounds"] if one["cosine"]]
        rows.append(
            [
                way["title"],
                f"{way['rate']:,.1f}",
                f"{way['pipeline_ratio']:.2f}x",
                f"{way['start_up_s']:.1f} s",
                f"{median(peaks) / 2**20:,.0f} MiB" if peaks else "",
                f"{median(compared):.5f}" if compared else "",
            ]
        )
    if bound := document["bound"]:
        share = document["ways"]["pipeline"]["rate"] / bound
        rows.append(["decode and models, sharing the cores", f"{bound:,.1f}", f"{share:.2f}x"])
    start_up = median(one["stage_start_up_s"] for one in document["ways"]["pipeline"]["rounds"])
    told = f"start-up of the embed stage, of the pipeline's: {start_up:.1f} s"
    return "\n".join([*lines, "", *columns(rows), "", told])


if __name__ == "__main__":
    sys.exit(main())
