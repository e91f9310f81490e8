"""`python -m benchmarks.child WAY OUT`: one way of embedding, in a process of its own.

A request that is wrong is left as OUT/error.txt.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from pkgutil import resolve_name

from benchmarks.task import Task
from lookalike.errors import RequestError

FUNCTIONS = {
    "pipeline": "benchmarks.way_pipeline:pipeline",
    "bare": "benchmarks.way_bare:bare",
    "hub": "benchmarks.way_hub:tf_data",
    "runinference": "benchmarks.way_runinference:hand_written",
    "runinference-engine": "benchmarks.way_runinference:same_engine",
    "decode": "benchmarks.way_bare:decode_only",
    "model": "benchmarks.way_bare:model_only",
}
"""function(task, out) by way; imported by name, so that a process imports what it needs."""


def main(way: str, out: Path) -> int:
    """Run one way; returns the exit status."""
    task: Task = pickle.loads((out / "task.pickle").read_bytes())
    try:
        resolve_name(FUNCTIONS[way])(task, out)
    except RequestError as error:
        (out / "error.txt").write_text(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
