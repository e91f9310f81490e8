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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

HERE = Path(__file__).parent
SECONDS = 120  # a run that takes longer hangs


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


def plain(**more: str) -> dict[str, str]:
    """The environment of a process that finds lookalike and these tools."""
    paths = os.pathsep.join([str(HERE.parent.parent), str(HERE.parent)])
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", **more}


class Injector:
    """Runs `lookalike` commands, one at a time, in an environment in which faults can happen."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._log = Path(mkdtemp(prefix="lookalike-faults-")) / "log"
        self._server = subprocess.Popen(
            [sys.executable, "-m", "faults.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(
        self,
        arguments: Sequence[object],
        shim: str = "",
        started: Callable[[int], None] = lambda process: None,
    ) -> Ended:
        """Run one command to its end, whatever that is.

        Args:
            arguments: Of `lookalike`.
            shim: Its orders, if any.
            started: Told of the process that runs it.
        """
        assert self._server.stdin is not None
        began = time.monotonic()
        order = {
            "arguments": [str(word) for word in arguments],
            "shim": shim,
            "log": str(self._log),
            "seconds": SECONDS,
        }
        print(json.dumps(order), file=self._server.stdin, flush=True)
        started(self._answer())
        status = self._answer()
        said = self._log.read_text(errors="replace")
        return Ended(status, said, time.monotonic() - began)

    def _answer(self) -> int:
        assert self._server.stdout is not None
        answer = self._server.stdout.readline()
        assert answer, "the server of faults has died"
        return int(answer)

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(30)
        shutil.rmtree(self._log.parent, ignore_errors=True)
