"""Samples of a store's vectors, drawn by tasks, each of which looks at some of the files.

    rows of some files -> the ids of smallest key -> their vectors, one file for each sample
    these files of all tasks -> the rows of smallest key of them all: `Drawn`

A key is a hash, so the largest key of a sample of so many rows is known but for chance, and no task
writes out rows that the sample will not have: files together hold a little more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Vectors
from lookalike.sampling import ALL, sample_ids, smallest
from lookalike.store.attempts import Record, recorded
from lookalike.store.files import HashedName
from lookalike.store.objects import Store
from lookalike.store.shard_format import make_id
from lookalike.store.vector_reader import VectorReader

_READ_ROWS = 8192  # vectors in memory at a time
_CHANCE = 8  # standard deviations that a sample is drawn wider, lest it come out short
_NONE: Ids = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Span:
    """Consecutive rows of an embedding shard, whose path is relative to the store."""

    path: str
    file_no: int
    rows: int
    first: int = 0

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Span:
        """All rows of a shard, by its line in the manifest."""
        return cls(str(line["path"]), int(line["file_no"]), int(line["rows"]))

    def living(self, deleted: Ids) -> int:
        """How many are not among the deleted, which are ascending."""
        begin, end = self._among(deleted)
        return self.rows - (end - begin)

    def ids(self, deleted: Ids) -> Ids:
        """Ids of the living rows, (n,) int64, ascending."""
        start, (begin, end) = make_id(self.file_no, self.first), self._among(deleted)
        there = np.ones(self.rows, dtype=bool)
        there[deleted[begin:end] - start] = False
        return start + np.flatnonzero(there)

    def _among(self, deleted: Ids) -> tuple[int, int]:
        start = make_id(self.file_no, self.first)
        begin, end = np.searchsorted(deleted, [start, start + self.rows])
        return int(begin), int(end)


@dataclass(frozen=True)
class Draw:
    """One sample to draw: the rows of smallest key.

    Attributes:
        seed: Of the keys; samples of different seeds are independent.
        count: Rows, at most.
        limit: Their largest key, at most.
    """

    seed: int
    count: int
    limit: int = ALL

    @classmethod
    def among(cls, rows: int, seed: int, count: int) -> Draw:
        """A sample of `count` of so many rows."""
        wide = count + _CHANCE * sqrt(count) + _CHANCE**2
        return cls(seed, count, ALL if wide >= rows else ceil(ALL * (wide / rows)))


@dataclass(frozen=True)
class DrawTask:
    """What one task draws; paths are relative to the store.

    Attributes:
        spans: The rows it looks at.
        output: Their files: the name but for the sample's number and the hash of the content.
        removed: A .npy file of ids (n,) int64, ascending, to leave out; "" for none.
    """

    number: int
    spans: tuple[Span, ...]
    dim: int
    draws: tuple[Draw, ...]
    output: str
    done: str
    removed: str = ""


@recorded
def draw(task: DrawTask, store: Store) -> Record:
    """Write the task's part of each sample and, last, its record, which is returned.

    The record holds `drawn`, for each sample its file's line with the number of `rows`. The file
    holds their ids (n,) int64, ascending, and then their vectors (n, dim) float32. Of several
    attempts the first one's record counts (see `store.attempts`).
    """
    deleted = _NONE
    if task.removed:  # mapped: there may be many, and few of them are of these files
        deleted = np.load(store.local(task.removed), mmap_mode="r", allow_pickle=False)
    reader = VectorReader(store, {span.file_no: span.path for span in task.spans})
    drawn = []
    for number, one in enumerate(task.draws):
        blocks = (span.ids(deleted) for span in task.spans)
        ids = sample_ids(blocks, one.count, one.seed, limit=one.limit)
        with store.write(HashedName(f"{task.output}-{number}", ".rows")) as pending:
            pending.write(ids)
            for start in range(0, len(ids), _READ_ROWS):
                vectors = reader.vectors(ids[start : start + _READ_ROWS])
                pending.write(np.ascontiguousarray(vectors, dtype=np.float32))
        drawn.append({**pending.finished.to_json(), "rows": len(ids)})
    return {"drawn": drawn}


class Drawn:
    """A sample out of the files of all tasks, read when asked: `len(drawn)`, `drawn[rows]`.

    Training reads a sample in blocks and so need not hold it.

    Attributes:
        ids: (n,) int64, ascending.
    """

    def __init__(
        self,
        store: Store,
        records: Iterable[Record],
        number: int,
        draw: Draw,
        dim: int,
        without: Ids = _NONE,
    ) -> None:
        """Choose the rows; what is held of each is its id and its place.

        Args:
            store: The store's root.
            records: Of all tasks.
            number: Of the sample among those that they drew.
            draw: What is wanted of it; more may have been drawn.
            dim: Components of a vector.
            without: Ids that must not be among them.
        """
        self._dim, self._parts, found = dim, list[Vectors](), [_NONE]
        for line in (record["drawn"][number] for record in records):
            rows = int(line["rows"])
            if rows:
                file = store.once(line["path"])  # gone with the last who has it mapped
                found.append(np.fromfile(file, dtype=np.int64, count=rows))
                self._parts.append(
                    np.memmap(file, dtype=np.float32, mode="r", offset=8 * rows, shape=(rows, dim))
                )
        ids = np.concatenate(found)
        part = np.repeat(np.arange(len(self._parts)), [len(one) for one in self._parts])
        row = np.concatenate([np.empty(0, np.intp), *(np.arange(len(p)) for p in self._parts)])
        there = np.flatnonzero(~np.isin(ids, without))
        chosen = there[smallest(ids[there], draw.count, draw.seed)]
        chosen = chosen[np.argsort(ids[chosen])]
        self.ids: Ids = ids[chosen]
        self._part, self._row = part[chosen], row[chosen]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> Vectors:
        """Vectors of these rows of the sample, (m, dim) float32."""
        part, row = self._part[rows], self._row[rows]
        found = np.empty((len(part), self._dim), dtype=np.float32)
        for number in np.unique(part).tolist():
            own = part == number
            found[own] = self._parts[number][row[own]]
        return found
