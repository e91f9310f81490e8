"""Do tasks that each leave a record: what most stages are, on every engine."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from lookalike.store.attempts import Record
from lookalike.store.objects import Store, open_store
from lookalike.transforms.logs import LoggedFn, count, unit_of

_LOG = logging.getLogger(__name__)

Work = Callable[[Any, Store], Record]
"""Does a task that has a `number`, and leaves its record (see `lookalike.store.attempts`).

Where tasks have `rows`, these are logged and counted.
"""


class TaskTransform(beam.PTransform):
    """Tasks that one DoFn does, each by itself; yields the number of each finished one."""

    @abstractmethod
    def fn(self) -> beam.DoFn:
        """Task -> its number."""

    def set_up(self) -> beam.DoFn:
        """The DoFn, ready to do tasks in this process."""
        fn = self.fn()
        fn.setup()
        return fn

    def here(self, tasks: Iterable[Any]) -> None:
        """Do the same in this process, one task after the other, where that is all there is.

        A pipeline takes a tenth of a second to start, which is more than a small task needs.
        """
        fn = self.set_up()
        try:
            fn.start_bundle()
            for task in tasks:
                for _ in fn.process(task):
                    pass
            fn.finish_bundle()
        finally:
            fn.teardown()


@beam.typehints.with_input_types(Any)
@beam.typehints.with_output_types(int)
@dataclass
class DoTasks(TaskTransform):
    """Do tasks, each as a unit of its own.

    Yields the number of each finished task; of its attempts the first one's record counts.

    Attributes:
        stage: Name of the stage, for logs and counters.
        store: The store's root, reachable from every worker.
        work: Does one task; it is pickled, may run twice, also at once.
        min_ram: Memory that a task needs, in bytes, for engines that choose machines by it; 0 for
            what any machine has.
        spread: Whether there are several tasks, to be spread over workers.
    """

    stage: str
    store: str
    work: Work
    min_ram: int = 0
    spread: bool = True

    def expand(self, tasks: beam.PCollection[Any]) -> beam.PCollection[int]:
        """PCollection[Any] -> PCollection[int]."""
        do = beam.ParDo(self.fn())
        if self.min_ram:
            do = do.with_resource_hints(min_ram=self.min_ram)
        spread = tasks | "SpreadTasks" >> beam.Reshuffle() if self.spread else tasks
        return spread | "Do" >> do

    def fn(self) -> beam.DoFn:
        """See `TaskTransform`."""
        return _DoFn(self.stage, open_store(self.store), self.work)


class _DoFn(LoggedFn):
    def __init__(self, stage: str, store: Store, work: Work) -> None:
        self._stage, self._store, self._work = stage, store, work

    def process(self, task: Any) -> Iterator[int]:
        with unit_of(_LOG, self._stage, task.number) as counts:
            self._work(task, self._store)
            if rows := getattr(task, "rows", 0):
                counts["rows"] = rows
                count(self._stage, "rows", rows)
        count(self._stage, "tasks")
        yield task.number
