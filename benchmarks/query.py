"""`python -m benchmarks.query`: what one query takes, alone and beside busy processes.

lookalike.open(store).search(vectors=one) is asked one query at a time, by processes that are warm:
with the environment as it is, and with one thread for BLAS, in turn. A query that waits for other
threads takes several times as long beside busy processes where BLAS has more than one; the ratio
says so. Processor time is printed beside the time that passed: the former tells what a query costs
on a machine that does other things meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, thread_time
from typing import Any

import numpy as np

import lookalike
from benchmarks.child import Answers
from benchmarks.command import arguments, at_least_one, columns, run, say
from benchmarks.processes import Process, environment
from benchmarks.query_store import add_arguments, asked_store, queries
from lookalike.parallel import cores

VARIABLE = "OPENBLAS_NUM_THREADS"
"""What the threads of numpy's BLAS are set by; searches must not depend on it."""

SETTINGS: Mapping[str, Mapping[str, str]] = {"unset": {}, "1": {VARIABLE: "1"}}
"""What the variable is, by name: as users have it, and one thread."""
STATES = ("alone", "beside")

_LOT = 25  # queries that one process is asked before the other's turn, so that both meet the same

# Ends when its parent has, however that ended.
_BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    sum(range(100_000))"

Round = dict[str, float]
"""One process's queries in one state, in milliseconds: `p50` and `p90`, and of a query's processor
time `own_ms`, of the thread that asks, and `others_ms`, of all other threads of the process."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the JSON file if asked."""
    parser = arguments("benchmarks.query", __doc__)
    add = parser.add_argument
    add_arguments(parser, rows=300_000)
    add("--queries", type=int, default=500, help="of a process a round (500)")
    add("--rounds", type=int, default=5, help="how often all is repeated (5)")
    add("--busy", type=int, default=3, help="processes beside (3)")
    given = parser.parse_args(argv)
    at_least_one(parser, given, "rows dim queries rounds busy")
    return run("bench-query", given, prepare, table)


def prepare(given: Namespace) -> dict[str, Any]:
    """Make what is missing, and measure."""
    with asked_store(given) as (folder, store):
        asked = folder / "queries.npy"
        np.save(asked, queries(store, given.queries * given.rounds))
        found = measure(store, asked, given.queries, given.rounds, given.busy)
    named = {name: getattr(given, name) for name in ("queries", "rounds", "busy")}
    # Variables that set threads, but the one that is varied: those that users do not have show.
    threads = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.endswith("_NUM_THREADS") and name != VARIABLE
    }
    return {**found, **named, "cores": cores(), "environment": threads}


def measure(store: Path, queries: Path, count: int, rounds: int, others: int) -> dict[str, Any]:
    """Ask `count` queries a round in each state and setting, some of each setting in turn.

    Returns:
        The store's rows and dim, the load average before, and by state and setting the median of
        the rounds; `ratio` is that of the rounds' p50, unset to 1.
    """
    load = os.getloadavg()[0]
    found: dict[str, dict[str, list[Round]]] = {
        state: {name: [] for name in SETTINGS} for state in STATES
    }
    with ExitStack() as stack:
        inherited = {key: value for key, value in environment().items() if key != VARIABLE}
        title, asked = "a process that searches", ("benchmarks.query:answer", [store, queries])
        servers = {
            name: stack.enter_context(Process(title, *asked, variables={**inherited, **variables}))
            for name, variables in SETTINGS.items()
        }
        told, *_ = [server.ask() for server in servers.values()]
        for number in range(rounds):
            for state in STATES:
                names = list(SETTINGS)[:: -1 if number % 2 else 1]
                lots: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
                with busy(others if state == "beside" else 0):
                    for first in range(0, count, _LOT):
                        some = {"first": number * count + first, "count": min(_LOT, count - first)}
                        for name in names:
                            lots[name].append(servers[name].ask(some))
                for name in names:
                    found[state][name].append(summary(lots[name]))
                took = (f"{name} {own[-1]['p50']:.2f} ms" for name, own in found[state].items())
                say(f"round {number + 1} {state}: {', '.join(took)}")
    states = {}
    for state, by_name in found.items():
        pairs = zip(by_name["unset"], by_name["1"], strict=True)
        states[state] = {
            "settings": {name: middle(own) for name, own in by_name.items()},
            "ratio": median(unset["p50"] / one["p50"] for unset, one in pairs),
        }
    return {**told, "load_before": load, "states": states}


def answer(store: str, queries: str) -> Answers:
    """A process that searches, as users do: every query once, then those that it is told, in turn.

    Tells the `seconds` that each of `count` queries from `first` on took, and of processor time
    what the asking thread (`own`) and all other threads (`others`) used meanwhile.
    """
    searcher, vectors = lookalike.open(store), np.load(queries)
    for row in range(len(vectors)):
        searcher.search(vectors=vectors[row : row + 1])
    order = yield {"rows": searcher.count, "dim": searcher.dim}
    while True:
        seconds = []
        own, all_threads = thread_time(), process_time()
        for number in range(order["first"], order["first"] + order["count"]):
            row = number % len(vectors)
            began = perf_counter()
            searcher.search(vectors=vectors[row : row + 1])
            seconds.append(perf_counter() - began)
        own, all_threads = thread_time() - own, process_time() - all_threads
        order = yield {"seconds": seconds, "own": own, "others": max(0.0, all_threads - own)}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but use a core each."""
    command = [sys.executable, "-c", _BUSY, str(os.getpid())]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def summary(answers: Sequence[Mapping[str, Any]]) -> Round:
    """What a process's answers of one round come to."""
    seconds = [one for answer in answers for one in answer["seconds"]]
    p50, p90 = np.percentile(seconds, [50, 90]).tolist()
    own, others = (sum(answer[name] for answer in answers) for name in ("own", "others"))
    told = {
        "p50": p50,
        "p90": p90,
        "own_ms": own / len(seconds),
        "others_ms": others / len(seconds),
    }
    return {name: 1e3 * value for name, value in told.items()}


def middle(rounds: Sequence[Round]) -> Round:
    """The median of each number."""
    return {name: median(one[name] for one in rounds) for name in rounds[0]}


def table(document: Mapping[str, Any]) -> str:
    """What was measured, and a line for each state and setting."""
    lines = [
        "{rows:,} vectors of {dim} components, {rounds} rounds of {queries:,} queries, one at a "
        "time, {cores} cores; load before {load_before:.1f}".format(**document),
        *(f"in the environment: {name}={value}" for name, value in document["environment"].items()),
    ]
    rows = [["", VARIABLE, "p50", "p90", "processor", "other threads", "ms"]]
    titles = {"alone": "alone", "beside": f"beside {document['busy']} busy processes"}
    for state, title in titles.items():
        for name, ms in document["states"][state]["settings"].items():
            times = f"{ms['p50']:.2f}", f"{ms['p90']:.2f}", f"{ms['own_ms']:.2f}"
            rows.append([title, name, *times, f"{ms['others_ms']:.3f}"])
    ratios = (
        f"{title}: p50, unset to 1: {document['states'][state]['ratio']:.2f}"
        for state, title in titles.items()
    )
    return "\n".join([*lines, *columns(rows), *ratios])


if __name__ == "__main__":
    sys.exit(main())
