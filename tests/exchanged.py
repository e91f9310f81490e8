"""Rows that meet without an engine; and an exchange of numbers, as workers import it by name."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.store.attempts import Record, recorded
from lookalike.store.exchange import Dealing, Meet, Meeting, Reference, references, taken
from lookalike.store.files import HashedName
from lookalike.store.objects import Store

SCHEMA = pa.schema([("uri", pa.string()), ("n", pa.int64())])


def rows(numbers: list[int]) -> pa.Table:
    return pa.table({"uri": [f"u{n}" for n in numbers], "n": numbers}, schema=SCHEMA)


@dataclass(frozen=True)
class Task:
    done: str


@recorded
def deal(task: Task, store: Store, number: int) -> dict[str, Any]:
    with Dealing(store, HashedName(f"dealt/{number:06d}", ".arrow"), 4) as dealing:
        for start in range(0, 100, 10):
            some = [n for n in range(start, start + 10) if n % 3 == number]
            dealing.write(rows(some), np.array(some, dtype=np.int64) % 3)
    return dealing.record()


def deal_number(number: int, store: Store) -> dict[str, Any]:
    return deal(Task(f"dealt/{number:06d}.json"), store, number)


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
