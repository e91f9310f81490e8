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
from typing import Any

from lookalike.store.files import json_bytes
from lookalike.store.objects import Store

Record = dict[str, Any]


def once(store: Store, record: str, make: Callable[[], Mapping[str, Any]]) -> Record:
    """What a record says; where there is none yet, what `make` returns, unless another is faster.

    Args:
        store: The store's root.
        record: Path of the record, relative to it.
        make: Does the work, and returns what is to be recorded of it.
    """
    there = store.read(record)
    data = there.data if there else store.put_if_absent(record, json_bytes(make()))
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
