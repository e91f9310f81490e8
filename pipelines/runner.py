"""Where a run's pipelines run, and how a worker's error is told.

Beam is imported by `lookalike.pipelines.engine` alone, when a pipeline is built: what one worker of
this machine would do is done without one, and needs no Beam.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lookalike.errors import one_line

_USUAL_WORKERS = 16  # of a cluster that does not say how many it has
_NO_CODE = re.compile(r"No module named 'lookalike\b")
_NAMED = re.compile(r"[\w.]+(?:Error|Exception|Interrupt|Exit|Invalid)\b")  # a class, first


class EngineError(RuntimeError):
    """The engine did not finish; what is done stays done.

    Attributes:
        kind: Class of the error that a worker ended with, as a traceback names it; "" of the
            engine's own.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        """Keep what happened, in one line, and the class of the worker's error."""
        super().__init__(message)
        self.kind = kind


class WorkerDiedError(EngineError):
    """A worker process was ended from outside, or by a fault in native code."""


@dataclass(frozen=True)
class RunnerSpec:
    """Where and how parallel the pipelines run.

    Attributes:
        name: Of the engine, as `lookalike.pipelines.engines.ENGINES` has it.
        workers: Worker processes; 0 = one per core on the direct runner, else as the engine has.
        options: Further Beam pipeline options by name.
        arguments: Beam options as given on the command line after `--`.
    """

    name: str = "direct"
    workers: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Sequence[str] = ()

    @property
    def processes(self) -> int:
        """Worker processes, as far as is known: what work is cut for."""
        return self.workers or (cores() if self.here else _USUAL_WORKERS)

    @property
    def here(self) -> bool:
        """Whether workers are processes of this machine, which see what the launching one sees."""
        return self.name == "direct"

    @property
    def alone(self) -> bool:
        """Whether there is one worker, on this machine: what it does can be done here as well."""
        return self.here and self.processes == 1

    def at_most(self, tasks: int) -> RunnerSpec:
        """The same with no more processes than there are tasks."""
        if not (self.here or self.workers):
            return self
        return replace(self, workers=min(self.processes, max(1, tasks)))

    def worth(self, work: int, each: int) -> RunnerSpec:
        """The same with a process for every so much work, where their number is left open."""
        return self if self.workers else self.at_most(-(-work // each))

    @property
    def threads(self) -> int:
        """Threads per process; here all together are as many as there are cores."""
        return max(1, cores() // self.processes) if self.here else 1


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_here(work: Callable[[], None]) -> None:
    """Do in this process what one worker would do, without a pipeline.

    Raises:
        EngineError: See `run`.
    """
    try:
        work()
    except EngineError:
        raise
    except Exception as error:
        raise engine_error(error) from error


def engine_error(error: Exception) -> EngineError:
    """What ended a pipeline, in one line.

    Beam passes a worker's error on as the text of its traceback, or as it is.
    """
    if _NO_CODE.search(str(error)):
        return EngineError(
            "the workers cannot import lookalike: install it on them, in this version (on Dask on "
            "the scheduler too)",
            "ModuleNotFoundError",
        )
    lines = [line for line in str(error).splitlines() if line[:1].strip()]
    named = [line for line in lines if _NAMED.match(line)]
    last = (named or lines or [""])[-1]
    last = re.sub(r" \[while running '.*", "", last)
    last = re.sub(rf"^RuntimeError: (?={_NAMED.pattern})", "", last)
    if not _NAMED.match(last):
        last = f"{_name_of(type(error))}: {last}" if last else _name_of(type(error))
    found = _NAMED.match(last)
    # Those of this library say it all.
    words = re.sub(r"^lookalike\.errors\.\w+: ", "", last)
    return EngineError(one_line(Exception(words)), found[0] if found else "")


def _name_of(kind: type) -> str:
    """As a traceback names it."""
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return module + kind.__qualname__
