"""An exchange of a hundred numbers; here, as workers import it by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import RunnerSpec
from lookalike.pipelines.tasks import run_exchange
from lookalike.store.attempts import recorded
from lookalike.store.exchange import Dealing, Reference, taken
from lookalike.store.files import HashedName
from lookalike.store.objects import Store
from lookalike.transforms.exchange import Exchange

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


def take_number(partition: int, pieces: list[Reference], store: Store) -> dict[str, Any]:
    table = taken(store, pieces, SCHEMA)
    found = {"rows": table.num_rows, "n": table["n"].to_pylist()}
    store.put_if_absent(f"taken/{partition:06d}.json", json.dumps(found).encode())
    return found


def joined(store: Store, runner: RunnerSpec) -> dict[int, Any]:
    through = Exchange("join", store.name, deal_number, take_number)
    return run_exchange(store, through, 3, "dealt", "taken", runner, Progress(quiet=True))
