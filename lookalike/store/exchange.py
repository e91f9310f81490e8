"""Rows on their way from the tasks that have them to the tasks that want them, through files.

Rows that belong together, such as those of one name or of one content, lie in many files. Tasks
deal them out to partitions, and for each partition another task takes its rows. The engine carries
references between the two, which say where rows lie, and never the rows themselves. So its memory
stays small, however many rows there are.

    a task's rows -> one file of scratch, in it for each partition a piece -> `Reference`s to pieces
    all references to one partition, of all files                         -> its rows, in order

    with Dealing(store, name, count) as dealing:
        dealing.write(table, uri_partitions(table["uri"], count))
    record = dealing.record()                              # of the task, see `store.attempts`
    table = taken(store, references, schema)               # those of one partition
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.store.files import HashedName
from lookalike.store.objects import Store

_BUFFER_BYTES = 64 << 20
_TASK_ROWS = 100_000  # of small files that one task deals out, about
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")

Numbers = npt.NDArray[np.integer]


@dataclass(frozen=True, order=True)
class Reference:
    """Where some rows of one partition lie; in the order of the references, rows are in theirs.

    Attributes:
        side: What the rows are, where there are several kinds of them.
        task: Number of the task that dealt them out.
        offset: First byte of the piece.
        bytes: Its size.
        rows: In it.
        path: Of the file, relative to the store.
    """

    side: str
    task: int
    offset: int
    bytes: int
    rows: int
    path: str


class Dealing:
    """One task's rows on their way to `count` partitions, in one file; in none without any.

    Some megabytes are held, however many rows and partitions there are. What goes to partitions of
    several kinds is told apart by its side.
    """

    def __init__(self, store: Store, name: HashedName, count: int) -> None:
        """Nothing is written before the context is entered."""
        self._store, self._name, self._count = store, name, count
        self._tables: dict[str, list[pa.Table]] = defaultdict(list)
        self._which: dict[str, list[Numbers]] = defaultdict(list)
        self._bytes = 0
        self._pieces: list[tuple[int, str, int, int, int]] = []

    def __enter__(self) -> Dealing:
        """Begin the file."""
        self._stack = ExitStack()
        self._pending = self._stack.enter_context(self._store.write(self._name))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file; with an error there is none."""
        try:
            if kind is None:
                self._flush()
                if not self._pieces:
                    self._pending.drop()
        except BaseException as failed:
            self._stack.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def write(self, table: pa.Table, which: Numbers, side: str = "") -> None:
        """Append rows: row i goes to partition `which[i]`, 0 <= which[i] < count.

        Tables of one side are of one schema.

        Raises:
            ValueError: There is no such partition, or not one number for each row.
        """
        if len(which) != table.num_rows:
            raise ValueError(
                f"{self._name}: each row needs a partition's number: {table.num_rows:,} rows, "
                f"{len(which):,} numbers"
            )
        if not len(which):
            return
        if which.min() < 0 or which.max() >= self._count:
            raise ValueError(
                f"{self._name}: partitions are numbered from 0 to {self._count - 1:,}, got numbers "
                f"from {which.min():,} to {which.max():,}"
            )
        self._tables[side].append(table)
        self._which[side].append(which)
        self._bytes += table.nbytes
        if self._bytes >= _BUFFER_BYTES:
            self._flush()

    def share(self, table: pa.Table, side: str) -> None:
        """Append rows, if any, that every partition takes; they are written once."""
        if table.num_rows:
            place = self._append(table)
            self._pieces += [(part, side, *place, table.num_rows) for part in range(self._count)]

    def record(self) -> Mapping[str, Any]:
        """The finished file, and where in it is what; see `references`."""
        file = self._pending.finished.to_json() if self._pieces else None
        rows = sum(piece[-1] for piece in self._pieces)
        return {"dealt": file, "rows": rows, "pieces": self._pieces}

    def _append(self, table: pa.Table) -> tuple[int, int]:
        """Write one piece; returns where it begins, and its size."""
        file = self._pending.file
        begin = file.tell()
        with pa.ipc.new_stream(file, table.schema, options=_OPTIONS) as stream:
            stream.write_table(table)
        return begin, file.tell() - begin

    def _flush(self) -> None:
        for side, tables in self._tables.items():
            which, table = np.concatenate(self._which[side]), pa.concat_tables(tables)
            if (which[1:] < which[:-1]).any():  # to take rows costs more than to see that
                order = np.argsort(which, kind="stable")
                table, which = table.take(pa.array(order)), which[order]
            starts = np.flatnonzero(np.diff(which, prepend=-1))
            for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(which)], strict=True):
                place = self._append(table.slice(start, end - start))
                self._pieces.append((int(which[start]), side, *place, end - start))
        self._tables.clear()
        self._which.clear()
        self._bytes = 0


def in_tasks(paths: Sequence[str], rows: int) -> list[tuple[str, ...]]:
    """Files, of so many rows in all, in order: several small ones are one task."""
    each = max(1, len(paths) * _TASK_ROWS // max(1, rows))
    return [tuple(paths[start : start + each]) for start in range(0, len(paths), each)]


def references(
    record: Mapping[str, Any], task: int, sides: Collection[str] = ()
) -> Iterator[tuple[int, Reference]]:
    """What a task's record of `Dealing` says: number of the partition and reference, of each piece.

    Args:
        record: The record.
        task: Number of the task: rows of lower ones come first.
        sides: Which rows; all where there are none.
    """
    for partition, side, offset, size, rows in record["pieces"]:
        if not sides or side in sides:
            path = str(record["dealt"]["path"])
            yield partition, Reference(side, task, offset, size, rows, path)


@lru_cache(maxsize=8)
def pieces_of(store: Store, done: str) -> Mapping[int, Sequence[Reference]]:
    """The references that a record at `done` holds, by partition; none where there is no record.

    All must be finished. They are kept: who asks for one partition asks for the next one soon.
    """
    record, found = store.read(done), defaultdict[int, list[Reference]](list)
    for partition, piece in references(json.loads(record.data), 0) if record else ():
        found[partition].append(piece)
    return dict(found)


def taken(
    store: Store, pieces: Iterable[Reference], schema: pa.Schema | None = None, side: str = ""
) -> pa.Table:
    """The rows of one side that references lead to, in the order in which they were dealt out.

    Args:
        store: The store's root.
        pieces: References to one partition, in any order.
        schema: Of the rows, also where there are none; None for that which they have.
        side: Which of them.
    """
    wanted: dict[str, list[tuple[int, int]]] = {}
    for one in sorted({one for one in pieces if one.side == side}):
        wanted.setdefault(one.path, []).append((one.offset, one.bytes))
    tables = [] if schema is None else [schema.empty_table()]
    for found in store.read_many(list(wanted.items())):
        for data in found:
            table = pa.ipc.open_stream(data).read_all()
            tables.append(table if schema is None else table.cast(schema))
    return pa.concat_tables(tables)
