"""`python -m benchmarks.embed`: images/s of the embed stage beside other ways to do it.

pipeline             `lookalike index`, its embed stage, all processes
bare                 as many plain processes with the same decode and engine: the pipeline's limit
hub                  hub.load called batch by batch with a tf.data input, one process, all threads;
                     builtin:photo as its network is in float32
runinference         Beam's RunInference, a hand-written handler with hub.load, Pillow in a Map
runinference-engine  the same with the pipeline's decode and engine
decode               as many plain processes that read, decode and resize, and embed nothing
model                as many plain processes that embed pictures decoded before

Each way runs in a process of its own, in turn within every round, the first changing from round to
round; medians over the rounds. Rates are of the time in which all processes are warm and busy: the
models are loaded, the first unit or batch is done, and none is at its end. Start-up is what the
rate does not explain of the time from a way's launch to its last picture. Memory is the sum over
its processes at the highest, shared pages counted for each. Cosine is the mean to the pipeline's
vectors. Decoding and models share the cores, so the most that both can make is what takes a picture
the time of the one and then of the other. No network is needed.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from lookalike.errors import RequestError

_LIBRARIES = ("tensorflow", "tensorflow-hub", "openvino", "apache-beam", "pillow", "numpy")
_ALL = ("pipeline", "bare", "hub", "runinference", "runinference-engine", "decode", "model")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the JSON file if asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.embed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", metavar="SRC", help="pictures to use (default: drawn ones)")
    parser.add_argument("--model", metavar="HANDLE",
                        help="one feature, builtin:photo or a SavedModel say (default: those of "
                             "lookalike index)")  # fmt: skip
    parser.add_argument("--engine", default="auto", help="what computes the model (auto)")
    parser.add_argument("--files", type=int, default=0,
                        help="pictures to embed (2000, more on more than 10 cores)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="how often each way runs (3)")
    parser.add_argument("--workers", type=int, default=0, help="processes (0: one per core)")
    parser.add_argument("--ways", default=",".join(_ALL), metavar="WAY,…",
                        help=f"beside the pipeline, of {', '.join(_ALL)} (all)")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    given = parser.parse_args(argv)
    asked = [way for way in given.ways.split(",") if way]
    if unknown := [way for way in asked if way not in _ALL]:
        parser.error(f"--ways knows {', '.join(_ALL)}, not {', '.join(unknown)}")
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    ways = [way for way in _ALL if way == "pipeline" or way in asked]
    logging.getLogger().setLevel(logging.ERROR)  # Beam talks while it is imported
    from benchmarks.launch import WayError

    try:
        document = measure(given, ways)
    except RequestError as error:
        print(f"bench-embed: {error}", file=sys.stderr)
        return 2
    except WayError as error:
        print(f"bench-embed: {error}", file=sys.stderr)
        return 1
    print(table(document))
    if given.json:
        Path(given.json).write_text(json.dumps(document, indent=1) + "\n")
    return 0


def measure(given: argparse.Namespace, ways: Sequence[str]) -> dict[str, Any]:
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

    features = [{"name": "model", "handle": given.model}]
    config = parse_config(
        {
            **({"features": features} if given.model else {}),
            "engine": given.engine,
            "index": {"kind": "exact"},  # what follows the embed stage is not measured
            "runner": {"workers": given.workers},
        },
        [],
    )
    with TemporaryDirectory(prefix="lookalike-bench-") as folder:
        work = Path(folder)
        files = given.files or max(2000, 2 * least_files(config.runner.processes))
        pictures = gather(given.images, files, work / "pictures")
        task = make_task(config, pictures.paths, work)
        rounds = []
        for number in range(given.rounds):
            shift = number % len(ways)
            (work / f"round-{number}").mkdir()
            in_turn = [*ways[shift:], *ways[:shift]]
            say = partial(_say, f"round {number + 1} of {given.rounds}")
            rounds.append(measure_round(in_turn, task, work / f"round-{number}", say))
    found: dict[str, Any] = {}
    for way in ways:
        runs = [each[way] for each in rounds]
        found[way] = {"title": WAYS[way], "rate": median(run.rate for run in runs),
                      "start_up_s": median(run.start_up_s for run in runs),
                      "rounds": [asdict(run) for run in runs]}  # fmt: skip
    for way in ways:
        found[way]["pipeline_ratio"] = found["pipeline"]["rate"] / found[way]["rate"]
    bound = None
    if {"decode", "model"} <= set(ways):
        bound = 1 / (1 / found["decode"]["rate"] + 1 / found["model"]["rate"])
    others = [run["engines"] for run in found["pipeline"]["rounds"]]
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
        "versions": _versions(),
        "bound": bound,
        "ways": found,
    }


def _say(when: str, line: str) -> None:
    print(f"{when}: {line}", file=sys.stderr, flush=True)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "machine": platform.platform()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _notes(document: dict[str, Any]) -> list[str]:
    changed = document["engine_changed"]
    if not changed:
        return []
    return [f"NOT COMPARABLE: in {changed} rounds the pipeline chose another engine than the other "
            "ways had; name one with --engine"]  # fmt: skip


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
        *_notes(document),
        "",
        f"{'':38} {'images/s':>9} {'pipeline is':>12} {'start-up':>9} {'memory':>9} {'cosine':>8}",
    ]
    for way in document["ways"].values():
        peaks = [run["peak_bytes"] for run in way["rounds"] if run["peak_bytes"]]
        memory = f"{median(peaks) / 2**20:,.0f} MiB" if peaks else ""
        compared = [run["cosine"][0] for run in way["rounds"] if run["cosine"]]
        cosine = f"{median(compared):.5f}" if compared else ""
        lines.append(
            f"{way['title']:38} {way['rate']:9,.1f} {way['pipeline_ratio']:11.2f}x "
            f"{way['start_up_s']:7.1f} s {memory:>9} {cosine:>8}"
        )
    if bound := document["bound"]:
        share = document["ways"]["pipeline"]["rate"] / bound
        lines.append(f"{'both of these, sharing the cores':38} {bound:9,.1f} {share:11.2f}x")
    start_up = median(run["stage_start_up_s"] for run in document["ways"]["pipeline"]["rounds"])
    lines += ["", f"start-up of the embed stage, of the pipeline's: {start_up:.1f} s"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
