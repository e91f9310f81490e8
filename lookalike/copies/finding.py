"""Groups from what the tasks of a join found: links, equal vectors, names of the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from lookalike.copies.components import Links
from lookalike.copies.distinct import get_arrays
from lookalike.copies.pair_recall import PairRecall, Sample, group_of, pair_recall
from lookalike.copies.spec import Joined
from lookalike.distances import Ids
from lookalike.store.duplicates import DuplicateReader
from lookalike.store.living import deleted_ids
from lookalike.store.objects import Store
from lookalike.store.snapshot import files_of
from lookalike.store.tombstones import among

Records = Iterable[Mapping[str, Any]]


def components_of(
    scratch: Store, joined: Joined, dealt: Records, taken: Records, found: Records
) -> tuple[Ids, Ids]:
    """Ids (n,) of all rows with a near-copy or second name, and the group of each (see `Links`)."""
    links = Links()
    for record in found:
        own = get_arrays(scratch, record["links"])
        links.add(own["id"], own["first"])
    # Equal vectors whose inner product with themselves is too small are near-copies of one another
    # by another row, if at all: by one that is linked to the first of them.
    for records in (taken, dealt):
        unsure: list[tuple[Ids, Ids]] = []
        for record in records:
            own = get_arrays(scratch, record["links"])
            alike = own["alike"]
            links.add(own["id"][alike], own["first"][alike])
            if not alike.all():
                unsure.append((own["id"][~alike], own["first"][~alike]))
        ids, first = links.arrays() if unsure else (np.empty(0, np.int64), np.empty(0, np.int64))
        for copies, firsts in unsure:
            linked = group_of(firsts, ids, first) >= 0
            links.add(copies[linked], firsts[linked])
    for ids in _renamed(joined):
        links.add(ids, ids)
    return links.arrays()


def recall_of(scratch: Store, sample: Sample, dealt: Records, ids: Ids, first: Ids) -> PairRecall:
    """The recall of pairs, from what the tasks saw that dealt rows out."""
    seen = [get_arrays(scratch, record["seen"]) for record in dealt]
    nothing = np.empty(0, dtype=np.int64)
    left, right = (
        np.concatenate([nothing, *(one[name] for one in seen)]) for name in ("left", "right")
    )
    return pair_recall(sample, left, right, ids, first)


def _renamed(joined: Joined) -> Iterator[Ids]:
    """Ids of the living rows that have other names."""
    lines = files_of(joined.manifest, "duplicates")
    deleted = deleted_ids(joined.store, joined.manifest)
    for ids in DuplicateReader(joined.store, [str(line["path"]) for line in lines]).ids():
        yield ids[~among(ids, deleted)]
