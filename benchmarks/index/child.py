"""`python -m benchmarks.index.child WAY build|serve TASK OUT`: one way, in its own process.

It imports numpy and the standard library alone, and then the way's module, so that it runs in a
rival's environment too. A way is a module with

build(task, out)   builds into the folder `out`; returns what there is to tell, a dict
serve(task, out)   opens that; returns an object with `settings`, a list of dicts, and
                   search(setting, queries, k), ids (n, k): row numbers, or what its numbers(ids)
                   turns into them

Serving, it reads one JSON order a line, and answers each with one.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from time import perf_counter, time
from typing import Any

import numpy as np

MODULES = {
    "lookalike": "benchmarks.index.way_lookalike",
    "autofaiss": "benchmarks.index.way_autofaiss",
    "wiki": "benchmarks.index.way_wiki",
    "exact": "benchmarks.index.way_exact",
}


class Unbuilt(Exception):
    """A way cannot build what was asked for; the message says why."""


def main(way: str, what: str, task_file: Path, out: Path) -> int:
    """Do one thing with one way; returns the exit status."""
    orders, answers = sys.stdin, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    task: dict[str, Any] = json.loads(task_file.read_text())
    module = importlib.import_module(MODULES[way])
    (out / "libraries.json").write_text(json.dumps(memory()))
    if what == "build":
        try:
            began = perf_counter()
            told = module.build(task, out)
            told = {"seconds": perf_counter() - began, "ended": time(), **told}
        except Unbuilt as reason:
            told = {"failed": str(reason)}
        (out / "built.json").write_text(json.dumps(told))
        return 0
    before, began = memory(), perf_counter()
    searcher = module.serve(task, out)
    opened = perf_counter() - began
    queries = np.load(task["queries"])
    print(json.dumps({"settings": searcher.settings, "open_s": opened}), file=answers, flush=True)
    for line in orders:
        order = json.loads(line)
        found, seconds = ask(searcher, order, queries, task["k"])
        if order.get("keep"):
            np.save(out / "found.npy", getattr(searcher, "numbers", np.asarray)(found))
        used = {name: size - before[name] for name, size in memory().items()}
        answer = {"seconds": seconds, "queries": len(found), "memory": used}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


def ask(searcher: Any, order: dict[str, Any], queries: Any, k: int) -> tuple[Any, float]:
    """Search for all queries at once, or for the first `single` one by one; rows and seconds."""
    single = order.get("single", 0)
    lots = [queries[i : i + 1] for i in range(single)] if single else [queries]
    began = perf_counter()
    found = [searcher.search(order["setting"], lot, k) for lot in lots]
    seconds = perf_counter() - began
    return np.concatenate(found), seconds


def memory() -> dict[str, int]:
    """Bytes of memory of this process: resident, and of that what is not of a file."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            fields = file.read().split()
    except OSError:
        return {"resident": 0, "anonymous": 0}
    page = os.sysconf("SC_PAGE_SIZE")
    resident, shared = int(fields[1]), int(fields[2])
    return {"resident": page * resident, "anonymous": page * (resident - shared)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
