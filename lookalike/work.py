"""What a stage does to each of its tasks, whoever has it done: workers of an engine, or a process.

Nothing here needs an engine; `lookalike.transforms.tasks.DoTasks` is the Beam transform around a
`Work`, and `do_here` does the same without one.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lookalike.store.attempts import Record
from lookalike.store.objects import Store
from lookalike.unit_log import logged

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

Counts = Mapping[str, int]
"""What to add to counters, by their names."""
Share = Callable[[Callable[[], Any]], Any]
"""Gives what a function loads, or what another thread of the process has loaded by it already."""


class Work(ABC):
    """What one stage does, a task at a time; it is pickled before it is set up.

    A task is a number, or has a `number`. It may be done twice, also at once: what it leaves is a
    record, of which the first counts (see `lookalike.store.attempts`).

    Attributes:
        stage: Name of the stage, for logs and counters.
        memory: Bytes that a task needs, for engines that choose machines by it; 0 for what any
            machine has.
    """

    stage: str
    memory: int = 0

    def set_up(self, share: Share) -> None:
        """Get ready to do tasks, in the process that does them; what takes memory is shared."""
        return

    def begin(self) -> None:
        """Begin a bundle: tasks that an engine takes for done together, at `end`."""
        return

    @abstractmethod
    def do(self, task: Any) -> Counts:
        """Do a task, and log how it ended."""

    def end(self) -> Counts:
        """Wait until all is done of the tasks since `begin`."""
        return {}

    def tear_down(self) -> None:
        """Let go of what `set_up` got."""
        return


@dataclass
class TaskWork(Work):
    """Work that is a function of a task and the store.

    Attributes:
        stage: Name of the stage, for logs and counters.
        store: The store's root, reachable from every worker.
        function: Does one task, and returns its record; it is pickled.
        memory: See `Work`.
        counts: What to log and count of a record; by default the task's `rows`, if it has any.
    """

    stage: str
    store: Store
    function: Callable[[Any, Store], Record]
    memory: int = 0
    counts: Callable[[Record], Counts] | None = None

    def do(self, task: Any) -> Counts:
        """See `Work`."""
        with logged(_LOG, self.stage, task.number) as counts:
            record = self.function(task, self.store)
            rows = {"rows": getattr(task, "rows", 0)}
            counts.update(self.counts(record) if self.counts else rows)
        return {**counts, "tasks": 1}


def do_here(work: Work, tasks: Iterable[Any]) -> None:
    """Do tasks in this process, one after the other.

    A pipeline takes a tenth of a second to start, and Beam more than one to be imported, which is
    longer than a small task takes.
    """
    work.set_up(alone)
    try:
        work.begin()
        for task in tasks:
            work.do(task)
        work.end()
    finally:
        work.tear_down()


def alone(load: Callable[[], _T]) -> _T:
    """For `Work.set_up` where nothing is shared: what is loaded."""
    return load()
