"""Processes that are measured: their environment, their memory, and talking with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from select import select
from time import time
from typing import Any, NamedTuple

from lookalike.errors import RequestError

_TOLD_LINES = 15
_LOOK_EVERY_S = 0.1
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


class WayError(RuntimeError):
    """A way that is measured failed."""


class Sample(NamedTuple):
    """Memory of processes at one time, in bytes; pages that they share count for each.

    Attributes:
        when: Seconds since 1970.
        processes: How many there are.
        resident: Memory, with what is mapped of files.
        anonymous: Memory without that.
    """

    when: float
    processes: int
    resident: int
    anonymous: int


class Process:
    """A process of `benchmarks.child` and all that it starts, watched until it is ended.

    Attributes:
        samples: Its memory, as it went.
    """

    def __init__(
        self,
        title: str,
        function: str,
        arguments: Sequence[str | Path],
        log: Path | None = None,
        python: str = sys.executable,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; its errors go to `log`, else to this process's."""
        self.samples: list[Sample] = []
        self._title, self._log = title, log
        with open(log, "ab") if log else nullcontext() as stderr:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.child", function, *map(str, arguments)],
                env=environment() if variables is None else variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(
        self, order: Mapping[str, Any] | None = None, limit_s: float | None = None
    ) -> dict[str, Any]:
        """Give it an order, if any, and wait for the answer.

        Raises:
            RequestError: What it refuses.
            TimeoutError: It has not answered within the limit.
            WayError: It ended without an answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if order is not None:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        if not select([self._process.stdout], [], [], limit_s)[0]:
            raise TimeoutError(f"{self._title}: not done after {limit_s:,.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise WayError("\n".join([f"{self._title} ended:", *self._last_lines()]))
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise RequestError(answer["refused"])
        return answer

    def memory(self) -> Sample | None:
        """What it has now, as `look` sees it."""
        return look(self._process.pid)

    def end(self) -> None:
        """End it and all that it started, which share its session."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._ended.set()
        self._watcher.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()

    def _last_lines(self) -> list[str]:
        """The end of its log."""
        said = self._log.read_text(errors="replace").splitlines() if self._log else []
        return said[-_TOLD_LINES:] or ["(silent)"]

    def _watch(self) -> None:
        while not self._ended.is_set():
            sample = look(self._process.pid)
            if sample is None:
                return
            self.samples.append(sample)
            self._ended.wait(_LOOK_EVERY_S)


def look(root: int) -> Sample | None:
    """Memory of a process and all below it; None where it has ended, or there is no /proc."""
    parents: dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        fields = _read(f"/proc/{name}/stat").rpartition(")")[2].split()
        if fields:  # else it has ended meanwhile
            parents[int(name)] = int(fields[1])
    if root not in parents:
        return None
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    pages = [_read(f"/proc/{pid}/statm").split()[1:3] for pid in family]
    alive = [(int(resident), int(shared)) for resident, shared in filter(None, pages)]
    page, resident = os.sysconf("SC_PAGE_SIZE"), sum(own for own, _ in alive)
    return Sample(time(), len(alive), page * resident, page * (resident - sum(s for _, s in alive)))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def environment() -> dict[str, str]:
    """This process's environment, with the project where Python finds it."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def worker_threads(threads: int) -> Iterator[None]:
    """Let processes that are started in a block have the thread counts of the pipeline's workers.

    And no others: what is measured later has the environment that users have.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
