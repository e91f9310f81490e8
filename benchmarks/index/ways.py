"""Building and serving each way in a process of its own, watched from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from benchmarks.index.exact import Rows, recall
from benchmarks.launch import WayError, environment
from benchmarks.memory import Sample, Watcher

TITLES = {
    "lookalike": "lookalike index --embeddings",
    "autofaiss": "autofaiss",
    "wiki": "Faiss IVF-PQ by its wiki",
    "exact": "exact search in memory",
}
"""What each way is called in the table, in its order."""

_LOOK_EVERY_S = 0.1
_TOLD_LINES = 15


@dataclass
class Built:
    """What building came to.

    Attributes:
        told: By the way itself: key, bytes, and more of its own.
        seconds: From before the libraries' import until it was done; None where it did not end.
        resident: Bytes of memory at the highest, above what its processes have once their
            libraries are imported; pages mapped of files count.
        anonymous: The same without those.
        failed: Why there is nothing to serve.
    """

    told: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    resident: int = 0
    anonymous: int = 0
    failed: str = ""


class Way:
    """One way in a folder of its own."""

    def __init__(self, name: str, python: Path | str, task: Path, folder: Path) -> None:
        self.name, self._python, self._task, self._out = name, str(python), task, folder / name
        self._out.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self, what: str, **streams: Any) -> subprocess.Popen[bytes]:
        command = [self._python, "-m", "benchmarks.index.child", self.name, what,
                   str(self._task), str(self._out)]  # fmt: skip
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                command, env=environment(), stderr=log, start_new_session=True, **streams
            )

    @property
    def _log(self) -> Path:
        return self._out / "stderr.txt"

    def build(self, limit_s: float | None = None) -> Built:
        """Build, for so long at the most."""
        began = monotonic()
        process = self._start("build", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        with Watcher(process, _LOOK_EVERY_S) as watcher:
            try:
                status = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return Built(failed=f"beaten: not done after {limit_s:,.0f} s")
            finally:
                _end(process)
        seconds = monotonic() - began
        if status:
            return Built(failed=f"status {status}: {self._last_lines()[-1]}")
        told = json.loads((self._out / "built.json").read_text())
        libraries = json.loads((self._out / "libraries.json").read_text())
        above = highest(watcher.samples, libraries)
        if "failed" in told:
            return Built(told, seconds, *above, told["failed"])
        return Built(told, seconds, *above)

    def open(self) -> dict[str, Any]:
        """Serve what was built; returns `settings`, and `open_s`."""
        self._process = self._start("serve", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._answer()

    def ask(self, setting: dict[str, Any], single: int = 0, keep: bool = False) -> dict[str, Any]:
        """Search; returns `seconds` and `queries`, and the server's `memory` by then."""
        assert self._process is not None
        assert self._process.stdin is not None
        order = json.dumps({"setting": setting, "single": single, "keep": keep})
        self._process.stdin.write(order.encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def recall(self, true: Rows) -> float:
        """Of what was last kept."""
        return recall(np.load(self._out / "found.npy"), true)

    def close(self) -> None:
        """End the server."""
        if self._process:
            _end(self._process)

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WayError("\n".join([f"{TITLES[self.name]} ended:", *self._last_lines()]))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_lines(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()[-_TOLD_LINES:] or ["(silent)"]


def highest(samples: list[Sample], libraries: dict[str, int]) -> tuple[int, int]:
    """Resident and anonymous bytes at their highest, less the libraries' in each process."""
    resident = (one.resident - one.processes * libraries["resident"] for one in samples)
    anonymous = (one.anonymous - one.processes * libraries["anonymous"] for one in samples)
    return max(0, *resident, 0), max(0, *anonymous, 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, which share its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()
