"""Rows that meet without an engine; and an exchange of numbers, as workers import it by name."""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import RunnerSpec
from lookalike.pipelines.tasks import TaskRunner
from lookalike.store.attempts import Part, Record, recorded
from lookalike.store.exchange import Dealing, Reference, references, taken
from lookalike.store.files import HashedName
from lookalike.store.meeting import Meet, Meeting
from lookalike.store.objects import Store
from lookalike.store.runs import Run

Deal = Callable[[int, Store], Any]
Take = Callable[[int, list[Reference], Store], Any]
SCHEMA = pa.schema([("uri", pa.string()), ("n", pa.int64())])


def rows(numbers: list[int]) -> pa.Table:
    return pa.table({"uri": [f"u{n}" for n in numbers], "n": numbers}, schema=SCHEMA)


@recorded
def deal(task: Part, store: Store) -> dict[str, Any]:
    with Dealing(store, HashedName(f"dealt/{task.number:06d}", ".arrow"), 4) as dealing:
        for start in range(0, 100, 10):
            some = [n for n in range(start, start + 10) if n % 3 == task.number]
            dealing.write(rows(some), np.array(some, dtype=np.int64) % 3)
    return dealing.record()


def deal_number(number: int, store: Store) -> dict[str, Any]:
    return deal(Part("dealt", number), store)


def meet_here(store: Store) -> Meet:
    """Brings rows together as an engine does, without one."""

    def bring(one: Meeting) -> dict[int, Record]:
        one = pickle.loads(pickle.dumps(one))
        groups: dict[int, list[Reference]] = {number: [] for number in range(one.every)}
        for task in range(one.tasks):
            for number, piece in references(one.deal(task, store), task, one.sides):
                groups.setdefault(number, []).append(piece)
        found = {number: dict(one.take(number, groups[number], store)) for number in groups}
        for number, record in found.items():
            assert store.read_json(f"{one.taken}/{number:06d}.json") == record
            assert record["rows"] == sum(piece.rows for piece in groups[number])
        return found

    return bring


def take_number(partition: int, pieces: list[Reference], store: Store) -> dict[str, Any]:
    table = taken(store, pieces, SCHEMA)
    found = {"rows": table.num_rows, "n": table["n"].to_pylist()}
    store.put_if_absent(f"taken/{partition:06d}.json", json.dumps(found).encode())
    return found


def joined(store: Store, runner: RunnerSpec, **which: Any) -> dict[int, Any]:
    meeting = Meeting("join", 3, deal_number, take_number, "dealt", "taken", **which)
    run = Run(store, "0123456789abcdef")
    return TaskRunner(run, runner, Progress(quiet=True)).exchange(meeting)


def replay(store: Store, tasks: Iterable[int], deal: Deal, take: Take) -> dict[int, Any]:
    """What an engine does with an exchange, without one: the records of the partitions."""
    pieces: dict[int, list[Reference]] = defaultdict(list)
    for task in tasks:
        for partition, piece in references(deal(task, store), task):
            pieces[partition].append(piece)
    return {number: take(number, pieces[number], store) for number in sorted(pieces)}
