"""Putting the queries' neighbours together that tasks found among some of the rows each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.exact_neighbours import ExactNeighbours
from lookalike.store.attempts import Record, recorded
from lookalike.store.files import HashedName
from lookalike.store.objects import Store


@dataclass(frozen=True)
class MergeTask:
    """Files to make one of; paths are relative to the store.

    Attributes:
        number: Of the task.
        queries: File of the queries, without neighbours.
        parts: Files of their neighbours among some rows each.
        output: The file to write: its name but for the hash of the content.
        done: The record.
    """

    number: int
    queries: str
    parts: tuple[str, ...]
    output: str
    done: str


@recorded
def merge_parts(task: MergeTask, store: Store) -> Record:
    """Write the neighbours among all rows and, last, the record: `truth`, the file's line."""
    found = merged(store, task.queries, task.parts)
    return {"truth": store.put(HashedName(task.output, ".npz"), found.to_bytes()).to_json()}


def merged(store: Store, queries: str, parts: Sequence[str]) -> ExactNeighbours:
    """The neighbours in all parts, of which one is held at a time."""
    total = ExactNeighbours.from_bytes(store.read_bytes(queries))
    for path in parts:
        total.merge(ExactNeighbours.from_bytes(store.read_bytes(path)))
    return total
