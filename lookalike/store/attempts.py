"""Work that several attempts may do, also at once: what the first one recorded counts, for ever.

An engine may run a task twice, and go on with an attempt that it gave up. So an attempt writes its
files under names that no other content has (`HashedName`), and then, last, a record that names
them, which is put only where there is none. One that finds a record takes that as its own result,
and its files are of no more use. Readers learn names from records alone, so that what they read is
one attempt's, whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from lookalike.store.files import json_bytes
from lookalike.store.objects import Store

Record = dict[str, Any]
_Task = TypeVar("_Task", bound="Task")
_Options = ParamSpec("_Options")


class Task(Protocol):
    """A piece of work of which a record tells that it is done, and what it made."""

    @property
    def done(self) -> str:
        """Path of the record, relative to the store."""


def recorded(
    work: Callable[Concatenate[_Task, Store, _Options], Mapping[str, Any]],
) -> Callable[Concatenate[_Task, Store, _Options], Record]:
    """Have a function of a task and a store done once.

    The function writes files, and returns what is to be recorded of them. Decorated, it returns
    what the record says: its own, or another attempt's that was first; where there is a record
    already, nothing is done.
    """

    @wraps(work)
    def attempt(
        task: _Task, store: Store, /, *args: _Options.args, **options: _Options.kwargs
    ) -> Record:
        return once(store, task.done, lambda: work(task, store, *args, **options))

    return attempt


def once(store: Store, done: str, work: Callable[[], Mapping[str, Any]]) -> Record:
    """The same of any work: what the record at `done` says, which is made where there is none."""
    there = store.read(done)
    data = store.put_if_absent(done, json_bytes(work())) if there is None else there.data
    found: Record = json.loads(data)
    return found


def finished(store: Store, records: Sequence[str]) -> list[Record]:
    """What all records of a stage say, in order; they are durable then, so that others may follow.

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
