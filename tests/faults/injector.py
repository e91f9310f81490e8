"""Real commands with one fault in them: each in a process of its own, which the fault may kill.

The processes are forked from one that has imported everything, so that a fault takes a second.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SECONDS = 120  # a run that takes longer hangs

POINTS = {
    "write": ("kill", "torn", "eio", "full"),
    "fsync": ("kill", "eio"),
    "rename": ("kill", "killed", "eio"),
    "open": ("denied",),
    "unlink": ("kill",),
}
"""What may go wrong with each kind of operation; `shim.c` says what the words mean."""

ERRORS = {"eio": "input/output error", "full": "no space left", "denied": "permission denied"}
"""What those say that do not kill; all the others do."""


@dataclass(frozen=True)
class Fault:
    """The nth operation of a kind, and what becomes of it; n = 0 is no fault at all."""

    kind: str = "none"
    action: str = "none"
    nth: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.nth}: {self.action}"


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its status (minus the signal), what it said, and its seconds."""

    status: int
    said: str
    seconds: float


def compiler() -> str | None:
    """A C compiler, or None."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


@lru_cache(maxsize=1)
def shim() -> Path:
    """The compiled shim."""
    library = Path(mkdtemp(prefix="lookalike-faults-")) / "shim.so"
    command = [compiler(), "-shared", "-fPIC", "-O1", "-o", library, HERE / "shim.c", "-ldl"]
    subprocess.run([str(word) for word in command], check=True)
    return library


def environment(**more: str) -> dict[str, str]:
    """Of a process in which faults can happen."""
    paths = [str(ROOT), str(HERE.parent)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "LD_PRELOAD": str(shim()),
        **more,
    }


def armed(store: Path, fault: Fault, trace: Path | None = None) -> str:
    """The shim's orders."""
    words = (store, fault.kind, fault.action, fault.nth, trace or "")
    return "\t".join(str(word) for word in words)


class Injector:
    """Runs `lookalike` commands, one at a time, each with a fault or none."""

    def __init__(self) -> None:
        self._log = Path(mkdtemp(prefix="lookalike-faults-")) / "log"
        self._server = subprocess.Popen(
            [sys.executable, "-m", "faults.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self.ran = 0

    def run(
        self,
        arguments: Sequence[object],
        store: Path,
        fault: Fault | None = None,
        trace: Path | None = None,
    ) -> Ended:
        """Run one command to its end, whatever that is; faults happen to files below `store`."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self.ran += 1
        began = time.monotonic()
        order = {
            "arguments": [str(word) for word in arguments],
            "fault": armed(store, fault or Fault(), trace),
            "log": str(self._log),
            "seconds": SECONDS,
        }
        print(json.dumps(order), file=self._server.stdin, flush=True)
        answer = self._server.stdout.readline()
        assert answer, "the server of faults has died"
        said = self._log.read_text(errors="replace")
        return Ended(int(answer), said, time.monotonic() - began)

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(30)
        shutil.rmtree(self._log.parent, ignore_errors=True)


def count_operations(trace: Path, store: Path) -> Counter[str]:
    """How many operations of each kind a traced run made in the store."""
    lines = [line.split("\t") for line in trace.read_text().splitlines()]
    counts = Counter(what for what, path, *_ in lines if Path(path).is_relative_to(store))
    counts["open"] += counts.pop("create", 0)
    counts["rename"] += counts.pop("link", 0)
    return counts


def all_faults(operations: Counter[str]) -> list[Fault]:
    """Every fault for every n."""
    return [
        Fault(kind, action, nth)
        for kind, actions in POINTS.items()
        for nth in range(1, operations[kind] + 1)
        for action in actions
    ]
