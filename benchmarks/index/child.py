"""One way to build or to search an index, as `benchmarks.child` runs it.

This imports numpy, and then the way's module, so that it runs in a rival's environment too. A way
is a module with

build(task, out)   builds into the folder `out`; returns what there is to tell, a dict
serve(task, out)   opens that; returns an object with `settings`, a list of dicts, and
                   search(setting, queries, k), ids (n, k): row numbers, or what its numbers(ids)
                   turns into them
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.child import Answers


def build(way: str, task_file: str, out: str) -> Answers:
    """Answers once the way's libraries are there; when asked builds, and tells of that."""
    module = import_module(f"benchmarks.index.way_{way}")
    yield {}
    yield module.build(json.loads(Path(task_file).read_text()), Path(out))


def serve(way: str, task_file: str, out: str) -> Answers:
    """Tells the settings, then searches as it is ordered: `setting`, `single`, `keep`.

    That is for all queries at once, or for the first `single` one by one; what is found is left in
    out/found.npy if it is to be kept.
    """
    task: dict[str, Any] = json.loads(Path(task_file).read_text())
    module = import_module(f"benchmarks.index.way_{way}")
    queries, began = np.load(task["queries"]), perf_counter()
    searcher = module.serve(task, Path(out))
    order = yield {"settings": searcher.settings, "open_s": perf_counter() - began}
    while True:
        single = order["single"]
        lots = [queries[i : i + 1] for i in range(single)] if single else [queries]
        began = perf_counter()
        parts = [searcher.search(order["setting"], lot, task["k"]) for lot in lots]
        seconds, found = perf_counter() - began, np.concatenate(parts)
        if order["keep"]:
            np.save(Path(out) / "found.npy", getattr(searcher, "numbers", np.asarray)(found))
        order = yield {"seconds": seconds, "queries": len(found)}
