"""Rows meet through an engine: what it carries is where they lie, in files of the store's scratch.

tasks by number -> Deal -> (partition, reference) -> GroupByKey -> Take -> partitions by number
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam

from lookalike.store.exchange import Reference
from lookalike.store.meeting import Meeting, deal, take
from lookalike.store.objects import Store
from lookalike.transforms.logs import LoggedFn, count, timed


@beam.typehints.with_input_types(int)
@beam.typehints.with_output_types(int)
class Exchange(beam.PTransform):
    """Bring together rows of many files that belong together: what a `Meeting` is."""

    def __init__(self, meeting: Meeting, store: Store) -> None:
        """Have rows meet.

        Args:
            meeting: Which rows, and what becomes of them.
            store: The store's root, reachable from every worker.
        """
        super().__init__()
        self._meeting, self._store = meeting, store

    def expand(self, tasks: beam.PCollection[int]) -> beam.PCollection[int]:
        """PCollection[int], tasks by number -> PCollection[int], partitions by number."""
        if self._meeting.tasks > 1:  # it takes a third of the time, and one task need not move
            tasks = tasks | "SpreadTasks" >> beam.Reshuffle()
        return (
            tasks
            | "Deal" >> beam.ParDo(_DealFn(self._meeting, self._store))
            | "Gather" >> beam.GroupByKey()
            | "Take" >> beam.ParDo(_TakeFn(self._meeting, self._store))
        )


class _MeetingFn(LoggedFn):
    def __init__(self, meeting: Meeting, store: Store) -> None:
        self._meeting, self._store = meeting, store


class _DealFn(_MeetingFn):
    def process(self, task: int) -> Iterator[tuple[int, Reference | None]]:
        with timed(self._meeting.stage):
            dealt = list(deal(self._meeting, task, self._store))
        count(self._meeting.stage, "dealt-rows", sum(one.rows for _, one in dealt if one))
        yield from dealt


class _TakeFn(_MeetingFn):
    def process(self, gathered: tuple[int, Iterable[Reference | None]]) -> Iterator[int]:
        partition, pieces = gathered
        found = list(pieces)
        with timed(self._meeting.stage):
            take(self._meeting, partition, found, self._store)
        count(self._meeting.stage, "taken-rows", sum(one.rows for one in found if one))
        yield partition
