"""The same queries in processes of two environments in turn, alone and beside busy processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.launch import WayError, environment
from benchmarks.query import VARIABLE

SETTINGS: Mapping[str, str | None] = {"unset": None, "1": "1"}
"""What the variable is, by name: as users have it, and one thread."""
STATES = ("alone", "beside")

_LOT = 25  # queries that one process is asked before the other's turn, so that both meet the same

# Ends when its parent has, however that ended.
_BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    sum(range(100_000))"


@dataclass(frozen=True)
class Round:
    """One process's queries in one state.

    Attributes:
        p50: Milliseconds of a query, the median.
        p90: The same, that nine of ten stay below.
        own_ms: Processor time of a query, of the thread that asks.
        others_ms: Of all other threads of the process.
    """

    p50: float
    p90: float
    own_ms: float
    others_ms: float


class Server:
    """A process that has opened the store and is warm."""

    def __init__(self, store: Path, queries: Path, threads: str | None) -> None:
        """Start it, with the environment that this process has but for the variable."""
        variables = {name: value for name, value in environment().items() if name != VARIABLE}
        if threads is not None:
            variables[VARIABLE] = threads
        command = [sys.executable, "-m", "benchmarks.query.child", str(store), str(queries)]
        self._process = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.told = self._answer()

    def ask(self, first: int, count: int) -> dict[str, Any]:
        """Search for some of the queries, one at a time; what the process answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{first} {count}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it."""
        with suppress(BrokenPipeError):
            self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WayError("a process that searches ended; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


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


def measure(
    store: Path, queries: Path, count: int, rounds: int, others: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Ask `count` queries a round in each state and setting, some of each setting in turn.

    Returns:
        The store's rows and dim, the load average before, and by state and setting the rounds'
        medians, each of them a `Round`; `ratio` is that of the rounds' p50, unset to 1.
    """
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        servers = {}
        for name, threads in SETTINGS.items():
            servers[name] = Server(store, queries, threads)
            stack.callback(servers[name].close)
        told = next(iter(servers.values())).told
        found: dict[str, dict[str, list[Round]]] = {
            state: {name: [] for name in SETTINGS} for state in STATES
        }
        for number in range(rounds):
            for state in STATES:
                names = list(SETTINGS)[:: -1 if number % 2 else 1]
                with busy(others if state == "beside" else 0):
                    lots: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
                    for first in range(0, count, _LOT):
                        for name in names:
                            some = min(_LOT, count - first)
                            lots[name].append(servers[name].ask(number * count + first, some))
                for name in names:
                    found[state][name].append(summary(lots[name]))
                took = (f"{name} {own[-1].p50:.2f} ms" for name, own in found[state].items())
                say(f"round {number + 1} {state}: {', '.join(took)}")
    return {**told, "load_before": load, "states": {
        state: {"settings": {name: middle(own) for name, own in by_name.items()},
                "ratio": median(unset.p50 / one.p50 for unset, one in
                                zip(by_name["unset"], by_name["1"], strict=True))}
        for state, by_name in found.items()}}  # fmt: skip


def summary(answers: list[dict[str, Any]]) -> Round:
    """What a process's answers of one round come to."""
    seconds = [one for answer in answers for one in answer["seconds"]]
    p50, p90 = (float(ms) for ms in 1e3 * np.percentile(seconds, [50, 90]))
    own, others = (sum(answer[name] for answer in answers) for name in ("own", "others"))
    return Round(p50, p90, 1e3 * own / len(seconds), 1e3 * others / len(seconds))


def middle(rounds: list[Round]) -> dict[str, float]:
    """The median of each number."""
    return {name: median(getattr(one, name) for one in rounds) for name in Round.__annotations__}
