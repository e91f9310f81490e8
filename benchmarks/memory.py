"""The memory of a process and all below it, as it goes."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass
from time import time

_LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class Sample:
    """Memory at one time; pages that processes share count for each.

    Attributes:
        when: Seconds since 1970.
        processes: How many there are.
        resident: Bytes, with what is mapped of files.
        anonymous: Bytes without those.
    """

    when: float
    processes: int
    resident: int
    anonymous: int


class Watcher:
    """Looks at a process until it ends, or the context does."""

    def __init__(self, process: subprocess.Popen[bytes], every_s: float = _LOOK_EVERY_S) -> None:
        self.samples: list[Sample] = []
        self._process, self._every_s, self._stop = process, every_s, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._process.poll() is None and not self._stop.is_set():
            sample = look(self._process.pid)
            if sample is None:
                return
            self.samples.append(sample)
            self._stop.wait(self._every_s)


def look(root: int) -> Sample | None:
    """Memory of a process and all below it; None where there is no /proc."""
    parents: dict[int, int] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return None
    for name in filter(str.isdigit, names):
        fields = _read(f"/proc/{name}/stat").rpartition(")")[2].split()
        if fields:  # else it has ended meanwhile
            parents[int(name)] = int(fields[1])
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    counts = [_read(f"/proc/{pid}/statm").split() for pid in family]
    alive = [(int(fields[1]), int(fields[2])) for fields in counts if fields]
    page = os.sysconf("SC_PAGE_SIZE")
    resident = sum(own for own, _ in alive)
    return Sample(time(), len(alive), page * resident, page * (resident - sum(s for _, s in alive)))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
