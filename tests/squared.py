"""Tasks that square numbers, for the tests of tasks: workers import them from here."""

from __future__ import annotations

from dataclasses import dataclass

from lookalike.store.attempts import Record, recorded
from lookalike.store.objects import Store


@dataclass(frozen=True)
class Square:
    number: int
    done: str


@recorded
def square(task: Square, store: Store) -> Record:
    if task.number < 0:
        raise ValueError(f"{task.number} is not squared")
    return {"square": task.number**2}
