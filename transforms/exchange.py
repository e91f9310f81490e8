"""Tasks deal rows out to partitions, and a task for each partition takes its own.

    tasks by number -> deal -> (partition, reference) -> GroupByKey -> take -> partitions by number

What goes through the engine is where rows lie, in files of the store's scratch (see
`lookalike.store.exchange`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam

from lookalike.store.exchange import Deal, Reference, Take, references
from lookalike.store.objects import Store, open_store
from lookalike.transforms.logs import LoggedFn, count, unit_of

_LOG = logging.getLogger(__name__)


@beam.typehints.with_input_types(int)
@beam.typehints.with_output_types(int)
@dataclass
class Exchange(beam.PTransform):
    """Bring together rows of many files that belong together.

    Both functions are pickled, may run twice, also at once, and leave records of which the first
    counts (see `lookalike.store.attempts`). Partitions that no row falls to have no task, but for
    the first `every`; these have one where there is any task.

    Attributes:
        stage: Name of the stage, for logs and counters.
        store: The store's root, reachable from every worker.
        deal: Task to partitions.
        take: Partition to what is wanted; its record tells of `rows`, those that it took.
        spread: Whether there are several workers, and tasks, to be spread over them.
        sides: Which of the rows dealt out; all where there are none.
        every: Partitions below this number are taken whatever falls to them.
    """

    stage: str
    store: str
    deal: Deal
    take: Take
    sides: tuple[str, ...] = ()
    every: int = 0
    spread: bool = True

    def expand(self, tasks: beam.PCollection[int]) -> beam.PCollection[int]:
        """PCollection[int], tasks by number -> PCollection[int], partitions by number."""
        deal, take = self._steps()
        spread = tasks | "SpreadTasks" >> beam.Reshuffle() if self.spread else tasks
        return (
            spread
            | "Deal" >> beam.ParDo(deal)
            | "Gather" >> beam.GroupByKey()
            | "Take" >> beam.ParDo(take)
        )

    def here(self, tasks: int) -> None:
        """Do the same in this process, one task after the other, where that is all there is.

        A pipeline takes a tenth of a second to start, which is more than some dozen files need.
        """
        deal, take = self._steps()
        gathered: dict[int, list[Reference | None]] = defaultdict(list)
        for task in range(tasks):
            for partition, piece in deal.process(task):
                gathered[partition].append(piece)
        for partition, pieces in sorted(gathered.items()):
            for _ in take.process((partition, pieces)):
                pass

    def _steps(self) -> tuple[_DealFn, _TakeFn]:
        store = open_store(self.store)
        deal = _DealFn(self.stage, store, self.deal, self.sides, self.every)
        return deal, _TakeFn(self.stage, store, self.take)


class _DealFn(LoggedFn):
    def __init__(
        self, stage: str, store: Store, deal: Deal, sides: tuple[str, ...], every: int
    ) -> None:
        self._stage, self._store, self._deal = stage, store, deal
        self._sides, self._every = sides, every

    def process(self, task: int) -> Iterator[tuple[int, Reference | None]]:
        with unit_of(_LOG, f"{self._stage} (deal)", task) as counts:
            pieces = list(references(self._deal(task, self._store), task, self._sides))
            counts["rows"] = sum(piece.rows for _, piece in pieces)
        count(self._stage, "dealt-rows", counts["rows"])
        yield from pieces
        if task == 0:
            yield from ((partition, None) for partition in range(self._every))


class _TakeFn(LoggedFn):
    def __init__(self, stage: str, store: Store, take: Take) -> None:
        self._stage, self._store, self._take = stage, store, take

    def process(self, gathered: tuple[int, Iterable[Reference | None]]) -> Iterator[int]:
        partition, pieces = gathered
        with unit_of(_LOG, self._stage, partition) as counts:
            found = [piece for piece in pieces if piece is not None]
            counts["rows"] = sum(piece.rows for piece in found)
            self._take(partition, found, self._store)
        count(self._stage, "taken-rows", counts["rows"])
        yield partition
