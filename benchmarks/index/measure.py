"""What `make bench-index` measures: every way built, then searched in turn with the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.index import vectors
from benchmarks.index.exact import nearest
from benchmarks.index.ways import TITLES, Built, Way

K = 10
SINGLE = 100  # queries asked one by one
_TIMED = 8  # settings of a way that are timed in every round, at most


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        rows: Vectors.
        queries: Held out, and asked.
        ways: Names, the project's first.
        rounds: How often each setting is timed.
        code_bytes: Memory of the rivals, per vector, without its id.
        dtype: What the vectors' files hold.
        workers: Processes of the project's build.
        cores: Of this machine.
        array_rows: Vectors that exact search holds, the rivals too; 0 where it is all.
        index: Options of the project's planner.
        patience: How long a rival may build, in times of the project's build.
        recall: To compare rates at.
        seed: Of whatever is random.
    """

    rows: int
    queries: int
    ways: tuple[str, ...]
    rounds: int
    code_bytes: int
    dtype: str
    workers: int
    cores: int
    array_rows: int = 0
    index: dict[str, Any] = field(default_factory=dict)
    patience: float = 4.0
    recall: float = 0.95
    seed: int = 0


def lay_out(source: vectors.Source, plan: Plan, folder: Path) -> tuple[Path, Any]:
    """Write the vectors, the queries and the task; returns the task's file and the true rows."""
    parts = vectors.write(source, plan.rows, folder / "parts", plan.dtype, plan.cores)
    asked = source.rows(plan.rows, plan.rows + plan.queries)
    np.save(folder / "queries.npy", asked)
    held = plan.array_rows or plan.rows
    (folder / "array").mkdir()
    if set(plan.ways) - {"lookalike"}:
        array = folder / "array" / "array.npy"
        vectors.write_array(parts, held, asked.shape[1], array)
    true = nearest(asked, vectors.blocks(parts), K)[0]
    task = folder / "task.json"
    task.write_text(json.dumps({
        "rows": plan.rows, "dim": asked.shape[1], "k": K, "seed": plan.seed,
        "parts": str(folder / "parts"), "array": str(folder / "array" / "array.npy"),
        "queries": str(folder / "queries.npy"), "code_bytes": plan.code_bytes,
        "index": plan.index, "workers": plan.workers, "cores": plan.cores,
    }))  # fmt: skip
    return task, true


def measure(
    plan: Plan, task: Path, true: Any, pythons: dict[str, str], say: Callable[[str], None]
) -> dict[str, Any]:
    """Build the ways one after another, then ask them in turn.

    Returns:
        By way: how building went (`Built`), and its `curve` (see `search`), without one where there
        is nothing to search.
    """
    folder, limit = task.parent / "ways", None
    found: dict[str, Any] = {}
    ways: dict[str, Way] = {}
    for name in plan.ways:
        ways[name] = way = Way(name, pythons[name], task, folder)
        built = way.build(limit)
        if name == "lookalike" and built.seconds:
            limit = plan.patience * built.seconds
        found[name] = {"title": TITLES[name], "built": asdict(built), "curve": []}
        say(f"{TITLES[name]}: {_told(built)}")
    served = {name: way for name, way in ways.items() if not found[name]["built"]["failed"]}
    try:
        for name, way in served.items():
            opened = way.open()
            found[name]["open_s"] = opened["open_s"]
            found[name]["curve"] = _first(way, opened["settings"], true, plan.recall)
            if name == "exact" and plan.array_rows:
                for row in found[name]["curve"]:  # of the rows that it has
                    row["recall"] = 1.0
            say(f"{TITLES[name]}: {len(opened['settings'])} settings")
        _time(plan, served, found)
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
    rows.sort(key=lambda row: (row["first_s"], -row["recall"]))
    best = [row for number, row in enumerate(rows)
            if all(row["recall"] > faster["recall"] for faster in rows[:number])]  # fmt: skip
    kept = set(np.linspace(0, len(best) - 1, _TIMED).astype(int).tolist())
    kept |= {number for number, row in enumerate(best) if row["recall"] >= least and (
             number == 0 or best[number - 1]["recall"] < least)}  # fmt: skip
    return [best[number] for number in sorted(kept)]


def _time(plan: Plan, served: dict[str, Way], found: dict[str, Any]) -> None:
    """Rates of all settings, the ways in turn, the first changing from round to round."""
    names = list(served)
    for name in names:
        for row in found[name]["curve"]:
            row["batch"], row["single"] = [], []
    share = (plan.array_rows or plan.rows) / plan.rows  # of the work that exact search does
    for number in range(plan.rounds):
        shift = number % len(names)
        for step in range(max(len(found[name]["curve"]) for name in names)):
            for name in [*names[shift:], *names[:shift]]:
                for row in found[name]["curve"][step : step + 1]:
                    times = share if name == "exact" else 1.0
                    for kind, single in (("batch", 0), ("single", SINGLE)):
                        told = served[name].ask(row["setting"], single=min(single, plan.queries))
                        row[kind].append(times * told["queries"] / told["seconds"])
                    row["memory"] = told["memory"]
    for name in names:
        for row in found[name]["curve"]:
            row["batch_rate"], row["single_rate"] = median(row["batch"]), median(row["single"])


def fastest(way: dict[str, Any], least: float, rate: str = "batch_rate") -> dict[str, Any] | None:
    """The row of a way's curve with the highest rate at that recall; None where none has it."""
    enough = [row for row in way["curve"] if row["recall"] >= least]
    return max(enough, key=lambda row: float(row[rate]), default=None)
