"""Rows of many files that belong together meet: tasks deal them out, a partition's task takes them.

    tasks by number -> `deal` -> (partition, reference) -> by partition -> `take` -> its record

An engine carries the references between the two (`lookalike.transforms.exchange`), which say where
rows lie in files of scratch (see `store.exchange`); `meet_here` does the same in one process.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lookalike.store.exchange import Reference, references
from lookalike.store.objects import Store
from lookalike.unit_log import logged

_LOG = logging.getLogger(__name__)

Deal = Callable[[int, Store], Mapping[str, Any]]
"""Deals out the rows of the task with a number; returns the record of its `Dealing`."""
Take = Callable[[int, list[Reference], Store], Mapping[str, Any]]
"""Makes of a partition's rows, found by references, what is wanted; returns the record of it."""


@dataclass(frozen=True)
class Meeting:
    """Rows that are to meet, by partitions; who brings them together is told all of it.

    Both functions are pickled, may run twice, also at once, and leave records of which the first
    counts (see `store.attempts`).

    Attributes:
        stage: Its name, for logs and counters.
        tasks: How many deal rows out.
        deal: Task to partitions.
        take: Partition to what is wanted; its record tells of `rows`, those that it took.
        dealt: Folder of the records that tasks leave; others may lie there, of other sides.
        taken: Folder of those that partitions leave, NNNNNN.json each.
        sides: Which rows meet, of those that tasks deal out; all where there are none.
        every: Partitions below this number have a task also where no row falls to them.
        rows: How many there are, about.
    """

    stage: str
    tasks: int
    deal: Deal
    take: Take
    dealt: str
    taken: str
    sides: tuple[str, ...] = ()
    every: int = 0
    rows: int = 0


Meet = Callable[[Meeting], dict[int, Mapping[str, Any]]]
"""Brings rows together; returns the records of the partitions by number."""


def deal(meeting: Meeting, task: int, store: Store) -> Iterator[tuple[int, Reference | None]]:
    """Deal out a task's rows: yields partitions, and where what they get lies.

    The first task gives those that are always taken a None, which is no row.
    """
    with logged(_LOG, f"{meeting.stage} (deal)", task) as counts:
        pieces = list(references(meeting.deal(task, store), task, meeting.sides))
        counts["rows"] = sum(piece.rows for _, piece in pieces)
    yield from pieces
    if task == 0:
        yield from ((partition, None) for partition in range(meeting.every))


def take(
    meeting: Meeting, partition: int, pieces: Iterable[Reference | None], store: Store
) -> None:
    """Take a partition's rows; its record is left."""
    with logged(_LOG, meeting.stage, partition) as counts:
        found = [piece for piece in pieces if piece is not None]
        counts["rows"] = sum(piece.rows for piece in found)
        meeting.take(partition, found, store)


def meet_here(meeting: Meeting, store: Store) -> None:
    """Have rows meet in this process, one task after the other.

    A pipeline takes a tenth of a second to start, which is more than some dozen files need.
    """
    gathered: dict[int, list[Reference | None]] = defaultdict(list)
    for task in range(meeting.tasks):
        for partition, piece in deal(meeting, task, store):
            gathered[partition].append(piece)
    for partition, pieces in sorted(gathered.items()):
        take(meeting, partition, pieces, store)
