"""Building and serving each way in a process of its own, watched from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from benchmarks.index.way_exact import recall
from benchmarks.processes import Process, Sample, WayError
from lookalike.distances import Ids
from lookalike.errors import RequestError

TITLES = {
    "lookalike": "lookalike index --embeddings",
    "autofaiss": "autofaiss",
    "wiki": "Faiss IVF-PQ by its wiki",
    "exact": "exact search in memory",
}
"""What each way is called in the table, in its order."""


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

    def __init__(self, name: str, python: str, task: Path, folder: Path) -> None:
        self._name, self._python, self._task, self._out = name, python, task, folder / name
        self._out.mkdir(parents=True)
        self._server: Process | None = None

    def _start(self, what: str) -> Process:
        return Process(
            TITLES[self._name],
            f"benchmarks.index.child:{what}",
            [self._name, self._task, self._out],
            self._out / "stderr.txt",
            self._python,
        )

    def build(self, limit_s: float | None = None) -> Built:
        """Build, for so long at the most."""
        began = monotonic()
        with self._start("build") as process:
            try:
                process.ask()
                libraries = process.memory()
                told = process.ask({}, limit_s)
            except TimeoutError:
                return Built(failed=f"beaten: not done after {limit_s:,.0f} s")
            except (RequestError, WayError) as reason:
                return Built(failed=str(reason))
            seconds = monotonic() - began
        return Built(told, seconds, *highest(process.samples, libraries))

    def open(self) -> dict[str, Any]:
        """Serve what was built; returns `settings`, and `open_s`."""
        self._server = self._start("serve")
        return self._server.ask()

    def ask(self, setting: dict[str, Any], single: int = 0, keep: bool = False) -> dict[str, Any]:
        """Search; returns `seconds` and `queries`."""
        assert self._server is not None
        return self._server.ask({"setting": setting, "single": single, "keep": keep})

    def recall(self, true: Ids) -> float:
        """Of what was last kept."""
        return recall(np.load(self._out / "found.npy"), true)

    def close(self) -> None:
        """End the server."""
        if self._server:
            self._server.end()


def highest(samples: Sequence[Sample], libraries: Sample | None) -> tuple[int, int]:
    """Resident and anonymous bytes at their highest, less the libraries' in each process."""
    if libraries is None:  # the system does not tell
        return 0, 0
    resident = (one.resident - one.processes * libraries.resident for one in samples)
    anonymous = (one.anonymous - one.processes * libraries.anonymous for one in samples)
    return max(0, *resident, 0), max(0, *anonymous, 0)
