"""`python -m benchmarks.query_child STORE QUERIES.npy`: a process that searches, as users do.

It opens the store, asks every query once, and then answers each line of JSON, `first` and `count`,
with another: the `seconds` that each of those queries took, asked for one at a time, and of
processor time what the asking thread (`own`) and all other threads (`others`) used meanwhile.
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
        order = json.loads(line)
        seconds = []
        own, all_threads = thread_time(), process_time()
        for number in range(order["first"], order["first"] + order["count"]):
            row = number % len(vectors)
            began = perf_counter()
            searcher.search(vectors=vectors[row : row + 1])
            seconds.append(perf_counter() - began)
        own, all_threads = thread_time() - own, process_time() - all_threads
        others = max(0.0, all_threads - own)
        print(json.dumps({"seconds": seconds, "own": own, "others": others}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
