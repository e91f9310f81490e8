"""Tasks that may run more than once, also at the same time: the first attempt's record counts.

An engine may run a task twice, and may go on with an attempt that it had given up. So an attempt

1. writes its files under names that contain the hash of their content (`HashedName`), so that two
   attempts never overwrite each other's files with something else;
2. puts a record that names these files, on the condition that there is no record yet;
3. returns what the record says. If another attempt was first, that is the other's result, and the
   files of this one are left over until they are swept.

Readers learn the names of files from records only, so everything they read is of one attempt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from lookalike.store.files import json_bytes
from lookalike.store.objects import Store

Record = Mapping[str, Any]
"""What a task left: JSON, in a form of its own."""
_Task = TypeVar("_Task", bound="Task")
_Options = ParamSpec("_Options")


class Task(Protocol):
    """A piece of work of which a record tells that it is done, and what it made."""

    @property
    def done(self) -> str:
        """Path of the record, relative to the store."""


@dataclass(frozen=True)
class Part:
    """A task that is known by its number: its record is `<folder>/NNNNNN.json`."""

    folder: str
    number: int

    @property
    def done(self) -> str:
        """Path of the record, relative to the store."""
        return f"{self.folder}/{self.number:06d}.json"


def recorded(
    work: Callable[Concatenate[_Task, Store, _Options], Mapping[str, Any]],
) -> Callable[Concatenate[_Task, Store, _Options], Record]:
    """Make a function of a task and a store leave a record, and do nothing where there is one.

    The function writes files and returns what is to be recorded of them. The decorated function
    returns what the record says: its own result, or that of another attempt that was first.
    """

    @wraps(work)
    def attempt(
        task: _Task, store: Store, /, *args: _Options.args, **options: _Options.kwargs
    ) -> Record:
        return once(store, task.done, lambda: work(task, store, *args, **options))

    return attempt


def record_of(store: Store, task: Task) -> Record | None:
    """What the record of a task says; None where there is none."""
    found = store.read(task.done)
    return None if found is None else json.loads(found.data)


def once(store: Store, done: str, work: Callable[[], Mapping[str, Any]]) -> Record:
    """The same of any work: what the record at `done` says, which is made where there is none."""
    there = store.read(done)
    found: Record = leave(store, done, work()) if there is None else json.loads(there.data)
    return found


def leave(store: Store, done: str, result: Mapping[str, Any]) -> Record:
    """Leave a record of work that is done, unless there is one by now; returns what it says."""
    found: Record = json.loads(store.put_if_absent(done, json_bytes(result)))
    return found


def finished(store: Store, records: Sequence[str]) -> list[Record]:
    """What all records of a stage say, in order; afterwards they are durable, like what they name.

    Raises:
        RuntimeError: Some are not there.
    """
    found = dict(zip(records, store.read_all(records), strict=True))
    missing = [record for record, one in found.items() if one is None]
    if missing:
        raise RuntimeError(
            f"{len(missing):,} of {len(records):,} parts did not finish (the first is "
            f"{store.shown(missing[0])}); run the same command again"
        )
    store.settle(records)
    return [json.loads(one.data) for one in found.values() if one is not None]


def named_files(record: Any) -> Iterator[str]:
    """Paths of the files that a record names, wherever in it."""
    if isinstance(record, Mapping):
        if "path" in record and "sha256" in record:
            yield str(record["path"])
        record = list(record.values())
    if isinstance(record, list):
        for value in record:
            yield from named_files(value)
