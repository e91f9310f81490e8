"""`python -m benchmarks.query.child STORE QUERIES.npy`: a process that searches, as users do.

It opens the store, asks every query once, and then answers each line `FIRST COUNT` on stdin, with a
line of JSON: the seconds that each of those queries took, asked for one at a time, and the seconds
of processor time that the asking thread and all other threads used meanwhile.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter, process_time, thread_time

import numpy as np

import lookalike


def main(store: Path, queries: Path) -> int:
    """Serve until stdin ends; returns the exit status."""
    searcher, vectors = lookalike.open(store), np.load(queries)
    for row in range(len(vectors)):
        searcher.search(vectors=vectors[row : row + 1])
    print(json.dumps({"rows": searcher.count, "dim": searcher.dim}), flush=True)
    for line in sys.stdin:
        first, count = map(int, line.split())
        seconds = []
        own, all_threads = thread_time(), process_time()
        for row in (number % len(vectors) for number in range(first, first + count)):
            began = perf_counter()
            searcher.search(vectors=vectors[row : row + 1])
            seconds.append(perf_counter() - began)
        own, all_threads = thread_time() - own, process_time() - all_threads
        others = max(0.0, all_threads - own)
        print(json.dumps({"seconds": seconds, "own": own, "others": others}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
