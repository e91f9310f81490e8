"""Do tasks that each leave a record: what most stages are, on every engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared

from lookalike.transforms.logs import LoggedFn, count_all, timed
from lookalike.work import Work

_RANGES = 1024  # of numbers, in a pipeline's graph


@beam.typehints.with_input_types(Any)
@beam.typehints.with_output_types(int)
class DoTasks(beam.PTransform):
    """Do tasks, each as a unit of its own.

    Yields the number of each task that is done; with work that goes on beside the next task, its
    record is there before the bundle ends, or the bundle fails.

    Attributes:
        work: Does a task.
        spread: Whether there are several tasks, to be spread over workers.
    """

    def __init__(self, work: Work, spread: bool = True, shared: Shared | None = None) -> None:
        """Have some work done.

        Args:
            work: See above.
            spread: See above.
            shared: Handle of what the threads of a process have in common, where other transforms
                have it, too.
        """
        super().__init__()
        self.work, self.spread = work, spread
        self._shared = shared or Shared()

    def expand(self, tasks: beam.PCollection[Any]) -> beam.PCollection[int]:
        """PCollection[Any] -> PCollection[int]."""
        do = beam.ParDo(_WorkFn(self.work, self._shared))
        if self.work.memory:
            do = do.with_resource_hints(min_ram=self.work.memory)
        spread = tasks | "SpreadTasks" >> beam.Reshuffle() if self.spread else tasks
        return spread | "Do" >> do


class _WorkFn(LoggedFn):
    def __init__(self, work: Work, shared: Shared) -> None:
        self._work, self._shared = work, shared

    def setup(self) -> None:
        self._work.set_up(self._shared.acquire)

    def start_bundle(self) -> None:
        self._work.begin()

    def process(self, task: Any) -> Iterator[int]:
        with timed(self._work.stage):
            counts = self._work.do(task)
        count_all(self._work.stage, counts)
        yield task if isinstance(task, int) else task.number

    def finish_bundle(self) -> None:
        with timed(self._work.stage):
            counts = self._work.end()
        count_all(self._work.stage, counts)

    def teardown(self) -> None:
        self._work.tear_down()


@beam.typehints.with_output_types(int)
class Numbers(beam.PTransform):
    """Ascending numbers, at the beginning of a pipeline: few ranges stand in its graph.

    They are several all the same, as some engines spread only what a pipeline begins with.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        """Give the numbers."""
        super().__init__()
        self._ranges = ranges_of(numbers)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[int]:
        """PBegin -> PCollection[int]."""
        ranges = pipeline | "Ranges" >> beam.Create(self._ranges, reshuffle=False)
        return ranges | "Number" >> beam.FlatMap(_each).with_output_types(int)


def begin(tasks: Sequence[Any]) -> beam.PTransform:
    """What gives tasks, or ascending numbers of tasks, at the beginning of a pipeline."""
    if tasks and isinstance(tasks[0], int):
        return Numbers(tasks)
    return beam.Create(tasks, reshuffle=False)


def ranges_of(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as ranges [first, end) without gaps, about a thousand of equal size.

    So 0, 1, 2, 5 are (0, 3) and (5, 6) where a range may hold three of them.
    """
    most = -(-len(numbers) // _RANGES)
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        first, end = ranges[-1] if ranges else (number, number)
        if number == end and end - first < most:
            ranges[-1:] = [(first, number + 1)]
        else:
            ranges.append((number, number + 1))
    return ranges


def _each(bounds: tuple[int, int]) -> Iterator[int]:
    yield from range(*bounds)
