"""Where compaction moves rows to: the new id of each old one, without a table of all rows.

The new row number is the number of living rows in the shards merged before, plus the number of
living rows before it in its own shard.

For example, shards 3 and 4 with 5 rows each become shard 9, and row 1 of shard 3 and row 0 of shard
4 are deleted. Row 2 of shard 3 becomes row 1 of shard 9, as one deleted row lies before it. Row 3
of shard 4 becomes row 4 + 3 - 1 = 6: four rows of shard 3 come first, and one deleted row lies
before it in shard 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lookalike.distances import Ids
from lookalike.store.compacting import CompactTask, Line, living_rows
from lookalike.store.objects import Store
from lookalike.store.shard_format import file_numbers, row_numbers
from lookalike.store.tombstones import among


class Moved:
    """Where compaction moves rows to.

    Attributes:
        tombstones: The deleted rows of shards that stay, (n,) int64, ascending.
        sources: The manifest's lines of the shards that go.
        targets: Numbers of the shards that come.
    """

    def __init__(self, tasks: Sequence[CompactTask], deleted: Ids) -> None:
        """Take in the tasks of `plan_compaction` and the same deleted rows, ascending."""
        rows = [(int(source["file_no"]), task.file_no) for task in tasks for source in task.sources]
        offsets = [offset for task in tasks for offset in _offsets(task, deleted)]
        order = np.argsort([source for source, _ in rows]).astype(np.intp)
        table = np.array(rows, dtype=np.int64).reshape(-1, 2)[order]
        self._sources, self._targets = table[:, 0], table[:, 1]
        self._offsets = np.array(offsets, dtype=np.int64)[order]
        self._deleted = np.asarray(deleted, dtype=np.int64)
        self._deleted_before = np.searchsorted(self._deleted, self._sources << 32)
        self.sources: list[Line] = [source for task in tasks for source in task.sources]
        self.targets = frozenset(task.file_no for task in tasks)
        self.files: frozenset[int] = frozenset(self._sources.tolist())
        self.tombstones: Ids = self._deleted[~np.isin(file_numbers(self._deleted), self._sources)]

    def __call__(self, ids: Ids) -> Ids:
        """The new ids (n,) of ids (n,): -1 for deleted rows that are gone; others stay."""
        ids = np.asarray(ids, dtype=np.int64)
        if not len(self._sources):
            return ids.copy()
        at = np.minimum(np.searchsorted(self._sources, ids >> 32), len(self._sources) - 1)
        moves = self._sources[at] == ids >> 32
        before = np.searchsorted(self._deleted, ids)
        rows = self._offsets[at] + row_numbers(ids) - (before - self._deleted_before[at])
        found = np.where(among(ids, self._deleted), -1, self._targets[at] << 32 | rows)
        return np.where(moves, found, ids)

    def place(self, line: Line) -> tuple[int, int, int]:
        """Where the living rows of a shard that goes are now: file number, first row, how many."""
        at = int(np.searchsorted(self._sources, int(line["file_no"])))
        return int(self._targets[at]), int(self._offsets[at]), living_rows(line, self._deleted)


@dataclass(frozen=True)
class Moving:
    """The tasks of a compaction, which tell where rows move to.

    Attributes:
        tasks: As from `plan_compaction`.
        deleted: The file of the deleted rows that it was given, relative to the store.
    """

    tasks: tuple[CompactTask, ...]
    deleted: str

    def __call__(self, store: Store) -> Moved:
        """Where they move to."""
        return Moved(self.tasks, np.load(store.local(self.deleted), mmap_mode="r"))


def _offsets(task: CompactTask, deleted: Ids) -> Iterator[int]:
    """Rows in the new shard before those of each source."""
    offset = 0
    for source in task.sources:
        yield offset
        offset += living_rows(source, deleted)
