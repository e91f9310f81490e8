"""Second step of a join: some rows are compared with all rows of the lists that each looks into.

A search would ask for the k nearest of each row, and rank candidates by their codes. Here the rows
that look into a list are compared with all that are in it, by the stored vectors: neither a code's
error nor a k can hide a pair. That takes products of matrices, which cost less than codes would,
since rows that are compared with the same list come together.

    rows of list 7   look into lists 7, 3, 12     (as many as the certificate says)
    rows of list 8   look into lists 8, 7, 3
    list 7           is compared with all of both at once

A pair is found if either row looks into the list of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lookalike.batching import up_to
from lookalike.copies.balls import links as links_of
from lookalike.copies.components import Links, Places
from lookalike.copies.distinct import get_arrays, put_arrays
from lookalike.copies.spec import Join, Joined
from lookalike.copies.tiles import Rows
from lookalike.copies.values import Values
from lookalike.distances import Ids
from lookalike.store.attempts import Record, recorded
from lookalike.store.files import HashedName
from lookalike.store.objects import Store

TASK_ROWS = 32_768
_VECTOR_BYTES = 32 << 20  # of rows that look, and of rows that are looked at, in memory
_MOST_ROWS = 16_384


@dataclass(frozen=True)
class JoinTask:
    """Rows that look for their near-copies.

    Attributes:
        files: Of distinct rows, by partition; "" for one without any.
        partition: That of the rows.
        start: Of the rows, the first one.
        stop: The one after the last.
    """

    number: int
    join: Join
    files: tuple[str, ...]
    partition: int
    start: int
    stop: int

    @property
    def done(self) -> str:
        """Path of the record."""
        return f"{self.join.folder}/joined/{self.number:06d}.json"


def join_tasks(join: Join, partitions: dict[int, Record], count: int) -> list[JoinTask]:
    """Tasks for all rows of `count` partitions, from what these say."""
    files = tuple(
        str(partitions[number]["file"]["path"]) if number in partitions else ""
        for number in range(count)
    )
    pieces = [
        (number, start, min(start + TASK_ROWS, record["distinct"]))
        for number, record in sorted(partitions.items())
        for start in range(0, record["distinct"], TASK_ROWS)
    ]
    return [JoinTask(number, join, files, *piece) for number, piece in enumerate(pieces)]


@recorded
def find_links(task: JoinTask, scratch: Store) -> Record:
    """Link the task's rows with their near-copies."""
    joined, links = task.join.opened(), Links()
    lists = _Lists(scratch, joined, task.files)
    for rows, home in lists.rows(task.partition, task.start, task.stop):
        for visitors, members in lists.visits(rows, home, task.join.nprobe):
            found = links_of(rows[visitors], members, task.join.threshold, joined.metric)
            for left, right in found:
                links.add(left, right)
    ids, first = links.arrays()
    name = HashedName(task.done.removesuffix(".json"), ".links")
    return {"links": put_arrays(scratch, name, id=ids, first=first)}


@dataclass
class _Partition:
    """Rows in order of their lists."""

    ids: Ids
    lists: Ids
    values: Values

    @cached_property
    def bounds(self) -> tuple[Ids, Ids]:
        """Numbers of the lists that are not empty (m,), and where each begins and ends (m + 1,)."""
        numbers, starts = np.unique(self.lists, return_index=True)
        return numbers, np.append(starts, len(self.lists))


class _Lists:
    """The distinct rows of all lists, by partition; the last partition that was read is kept."""

    def __init__(self, scratch: Store, joined: Joined, files: Sequence[str]) -> None:
        self._scratch, self._joined, self._files = scratch, joined, files
        self._kept: tuple[int, _Partition] | None = None
        self._at_once = max(1, min(_MOST_ROWS, _VECTOR_BYTES // (4 * joined.trained.spec.dim)))

    def rows(self, partition: int, start: int, stop: int) -> Iterator[tuple[Rows, Ids]]:
        """Some rows of a partition at a time, and the list of each."""
        whole = self._partition(partition)
        for first in range(start, stop, self._at_once):
            some = slice(first, min(first + self._at_once, stop))
            ids = whole.ids[some]
            vectors = self._joined.reader.vectors(ids)
            yield Rows(ids, whole.values[some], vectors), whole.lists[some]

    def visits(self, rows: Rows, home: Ids, nprobe: int) -> Iterator[tuple[Places, Rows]]:
        """Which of the rows (m,) look into a list, and rows that are in it; the list's own too."""
        trained = self._joined.trained
        _, probed = trained.coarse(trained.prepare(rows.vectors), nprobe)
        # By inner product, the list that a vector is in need not be among those it looks into.
        lists = np.concatenate([home[:, None], probed], axis=1)
        own = np.repeat(np.arange(len(rows)), lists.shape[1])
        lists, visitors = np.divmod(np.unique(lists.reshape(-1) * len(rows) + own), len(rows))
        wanted, starts = np.unique(lists, return_index=True)
        at = dict(zip(wanted.tolist(), np.split(visitors, starts[1:]), strict=True))
        for number, members in self._members(wanted):
            yield at[number], members

    def _members(self, wanted: Ids) -> Iterator[tuple[int, Rows]]:
        """The rows of some lists, ascending; a long list comes in several parts."""
        parts = self._joined.partition(wanted)
        for partition in np.unique(parts).tolist():
            if not self._files[partition]:
                continue
            whole = self._partition(partition)
            numbers, bounds = whole.bounds
            own = np.flatnonzero(np.isin(numbers, wanted[parts == partition]))
            pieces = [
                (int(numbers[one]), start, min(start + self._at_once, int(bounds[one + 1])))
                for one in own.tolist()
                for start in range(int(bounds[one]), int(bounds[one + 1]), self._at_once)
            ]
            for group in up_to(((piece, piece[2] - piece[1]) for piece in pieces), self._at_once):
                places = np.concatenate([np.arange(start, end) for _, start, end in group])
                ids = whole.ids[places]
                read = Rows(ids, whole.values[places], self._joined.reader.vectors(ids))
                first = 0
                for number, start, end in group:
                    yield number, read[first : first + end - start]
                    first += end - start

    def _partition(self, number: int) -> _Partition:
        if self._kept is None or self._kept[0] != number:
            found = get_arrays(self._scratch, {"path": self._files[number]})
            self._kept = number, _Partition(found["ids"], found["lists"], found["values"])
        return self._kept[1]
