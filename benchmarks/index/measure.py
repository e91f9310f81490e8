"""What `make bench-index` measures: every way built, then searched in turn with the others."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.command import say
from benchmarks.index import vectors
from benchmarks.index.generator import Generator
from benchmarks.index.way_exact import nearest
from benchmarks.index.ways import TITLES, Built, Way
from lookalike.parallel import cores

K = 10
SINGLE = 100  # queries asked one by one
_TIMED = 8  # settings of a way that are timed in every round, at most


def lay_out(made: Generator, given: Namespace, folder: Path) -> tuple[Path, Any]:
    """Write the vectors, the queries and the task; returns the task's file and the true rows."""
    parts = vectors.write(made, given.rows, folder / "parts", given.dtype)
    asked = made.rows(given.rows, given.rows + given.queries)
    np.save(folder / "queries.npy", asked)
    array = folder / "array" / "array.npy"
    array.parent.mkdir()
    if set(given.ways) - {"lookalike"}:
        vectors.write_array(parts, given.rows, asked.shape[1], array)
    about = {
        "rows": given.rows,
        "dim": asked.shape[1],
        "k": K,
        "seed": 0,
        "parts": str(folder / "parts"),
        "array": str(array),
        "queries": str(folder / "queries.npy"),
        "code_bytes": given.code_bytes,
        "index": given.index,
        "workers": given.workers,
        "cores": cores(),
    }
    (folder / "task.json").write_text(json.dumps(about))
    return folder / "task.json", nearest(asked, vectors.blocks(parts), K)[0]


def measure(given: Namespace, task: Path, true: Any, pythons: dict[str, str]) -> dict[str, Any]:
    """Build the ways one after another, then ask them in turn.

    Args:
        given: The arguments.
        task: The file that `lay_out` wrote.
        true: The rows to be found, (queries, K).
        pythons: The interpreter of each way.

    Returns:
        By way: how building went (`Built`), and its `curve` (see `_first`), without one where there
        is nothing to search.
    """
    limit = None
    found: dict[str, Any] = {}
    served: dict[str, Way] = {}
    for name in given.ways:
        way = Way(name, pythons[name], task, task.parent / "ways")
        built = way.build(limit)
        if name == "lookalike" and built.seconds:
            limit = given.patience * built.seconds
        found[name] = {"title": TITLES[name], "built": asdict(built), "curve": []}
        say(f"{TITLES[name]}: {_told(built)}")
        if not built.failed:
            served[name] = way
    try:
        for name, way in served.items():
            opened = way.open()
            found[name]["open_s"] = opened["open_s"]
            found[name]["curve"] = _first(way, opened["settings"], true, given.recall)
            say(f"{TITLES[name]}: {len(opened['settings'])} settings")
        _time(given, served, found)
    finally:
        for way in served.values():
            way.close()
    return found


def _told(built: Built) -> str:
    if built.failed or built.seconds is None:
        return built.failed
    return f"{built.told['key']}, built in {built.seconds:,.1f} s"


def _first(
    way: Way, settings: Sequence[dict[str, Any]], true: Any, least: float
) -> list[dict[str, Any]]:
    """Each setting once, which gives its recall; those that another beats in both are left out.

    So are some of many, but not the fastest that reaches the recall to compare at.
    """
    rows = []
    way.ask(settings[0])  # files are read, threads are started
    for setting in settings:
        seconds = way.ask(setting, keep=True)["seconds"]
        rows.append({"setting": setting, "recall": way.recall(true), "first_s": seconds})
    best: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["first_s"], -row["recall"])):
        if not best or row["recall"] > best[-1]["recall"]:
            best.append(row)
    kept = set(np.linspace(0, len(best) - 1, _TIMED).astype(int).tolist())
    enough = [number for number, row in enumerate(best) if row["recall"] >= least]
    return [best[number] for number in sorted(kept | set(enough[:1]))]


def _time(given: Namespace, served: dict[str, Way], found: dict[str, Any]) -> None:
    """Rates of all settings, the ways in turn, the first changing from round to round."""
    names = list(served)
    for name in names:
        for row in found[name]["curve"]:
            row["batch"], row["single"] = [], []
    for number in range(given.rounds):
        shift = number % len(names)
        for step in range(max(len(found[name]["curve"]) for name in names)):
            for name in [*names[shift:], *names[:shift]]:
                for row in found[name]["curve"][step : step + 1]:
                    for kind, single in (("batch", 0), ("single", SINGLE)):
                        told = served[name].ask(row["setting"], single=min(single, given.queries))
                        row[kind].append(told["queries"] / told["seconds"])
    for name in names:
        for row in found[name]["curve"]:
            row["batch_rate"], row["single_rate"] = median(row["batch"]), median(row["single"])


def fastest(way: dict[str, Any], least: float, rate: str = "batch_rate") -> dict[str, Any] | None:
    """The row of a way's curve with the highest rate at that recall; None where none has it."""
    enough = [row for row in way["curve"] if row["recall"] >= least]
    return max(enough, key=lambda row: float(row[rate]), default=None)
