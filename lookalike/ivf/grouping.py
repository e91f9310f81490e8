"""From parts, which hold some rows of all lists, to shards, which hold all rows of some lists.

Each task has a range of lists. It reads the entries of these lists from every part and writes them
as one shard, in order of (list, id). So the bytes of a shard depend on its entries alone, and not
on how the rows were cut into parts. Only codes and ids are moved, never vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from lookalike.distances import Ids
from lookalike.errors import RequestError
from lookalike.ivf.encoding import shard_header
from lookalike.ivf.fast_scan import Codes
from lookalike.ivf.part_files import Part, open_part
from lookalike.ivf.shard_files import Counts, write_shard
from lookalike.ivf.trained_index import TrainedIndex
from lookalike.store.attempts import Record, recorded
from lookalike.store.files import HashedName
from lookalike.store.objects import Store

_RUN_ROWS = 1 << 18  # entries sorted at a time: their codes stay in the cache


@dataclass(frozen=True)
class GroupTask:
    """One index shard to make from all parts; all paths are relative to the store.

    Attributes:
        number: Of the shard within its run.
        first_list: The first list of its range.
        last_list: The list after the last one.
        parts: Every part of the run, in any order.
        output: The index shard: the name of the file but for the hash of its content.
    """

    number: int
    first_list: int
    last_list: int
    parts: tuple[str, ...]
    output: str
    done: str


def list_sizes(store: Store, parts: Sequence[str], trained: TrainedIndex) -> Counts:
    """Entries of each list in all parts together: (nlist,) int64.

    Raises:
        RequestError: A part is damaged or of another trained index.
    """
    total = np.zeros(trained.spec.nlist, dtype=np.int64)
    opened = _open(store, parts, trained)
    for _, sizes in store.at_once(lambda part: part.sizes(0, trained.spec.nlist), opened):
        total += sizes
    return total


def list_ranges(sizes: Counts, shards: int) -> list[tuple[int, int]]:
    """Cut the lists into at most `shards` ranges [first, last) of nearly equal rows.

    Every list is in one range, and every range has at least one list. Lists of 5, 1, 1 and 5 rows
    are cut in two as [0, 2) and [2, 4), with 6 rows each; a single list of 12 rows is not cut.
    """
    nlist = len(sizes)
    count = max(1, min(shards, nlist))
    ends = np.cumsum(sizes)
    wanted = ends[-1] * np.arange(1, count) / count
    # The nearer of the two list boundaries around each equal share.
    after = np.searchsorted(ends, wanted)
    before = np.where(after > 0, ends[after - 1], 0)
    cuts = np.where(wanted - before < ends[after] - wanted, after, after + 1)
    steps = np.arange(1, count)  # no range may be empty: neither to the left nor to the right
    cuts = np.maximum.accumulate(np.maximum(cuts, steps) - steps) + steps
    cuts = np.minimum(cuts, nlist - count + steps)
    bounds = [0, *cuts.tolist(), nlist]
    return [*pairwise(bounds)]


@recorded
def group(task: GroupTask, store: Store, trained: TrainedIndex) -> Record:
    """Write the task's index shard, and last its record, which is returned.

    The record holds `shard` (the file's line for a manifest) and `header`. Of several attempts the
    first one's counts (see `store.attempts`).

    Raises:
        RequestError: A part is damaged or of another trained index, or two parts hold the same id.
    """
    parts = _open(store, task.parts, trained)
    first, last = task.first_list, task.last_list
    found = store.at_once(lambda part: part.sizes(first, last), parts)
    starts, sizes = np.array([start for start, _ in found]), np.stack([own for _, own in found])
    totals = sizes.sum(axis=0)
    header = shard_header(
        trained,
        trained.layout,
        first,
        last,
        int(totals.sum()),
        _extremes(store, parts, starts, sizes.sum(axis=1)),
    )
    with store.write(HashedName(task.output, ".lists")) as pending:
        write_shard(header, totals, _runs(store, parts, starts, sizes, totals), pending.write)
    line = {**pending.finished.line("index"), "rows": header.rows}
    return {"shard": line, "header": asdict(header)}


def _open(store: Store, parts: Sequence[str], trained: TrainedIndex) -> list[Part]:
    of = (trained.sha256, trained.code_size, trained.spec.nlist)
    return store.at_once(lambda path: open_part(store, path, *of), parts)


def _extremes(
    store: Store, parts: Sequence[Part], starts: Counts, counts: Counts
) -> tuple[int, int]:
    """Smallest and largest id of the range in all parts; (starts, counts: (parts,))."""

    def extremes(one: tuple[Part, int, int]) -> tuple[int, int]:
        part, start, count = one
        ids = part.ids(start, count)
        return int(ids.min()), int(ids.max())

    slices = zip(parts, starts.tolist(), counts.tolist(), strict=True)
    found = store.at_once(extremes, (one for one in slices if one[2]))
    smallest, largest = zip(*found, strict=True) if found else ((-1,), (-1,))
    return min(smallest), max(largest)


def _runs(
    store: Store, parts: Sequence[Part], starts: Counts, sizes: Counts, totals: Counts
) -> Iterator[tuple[Codes, Ids]]:
    """Codes and ids of consecutive lists, some lists at a time, by (list, id)."""
    ends = np.cumsum(totals)
    at = starts.copy()
    begin = 0
    while begin < len(totals):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + _RUN_ROWS, side="right")))
        counts = sizes[:, begin:end]
        yield _sorted_run(store, parts, at, counts)
        at += counts.sum(axis=1)
        begin = end


def _sorted_run(
    store: Store, parts: Sequence[Part], at: Counts, counts: Counts
) -> tuple[Codes, Ids]:
    """The entries from `at` (parts,) on of lists with `counts` (parts, lists) entries, sorted."""
    slices = list(zip(parts, at.tolist(), counts.sum(axis=1).tolist(), strict=True))
    lists = np.repeat(np.tile(np.arange(counts.shape[1]), len(parts)), counts.ravel())
    found = store.at_once(lambda one: one[0].entries(*one[1:]), slices)
    codes, ids = (np.concatenate(some) for some in zip(*found, strict=True))
    order = np.lexsort((ids, lists))
    ids = ids[order]
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if len(repeated):
        raise RequestError(f"id {repeated[0]} comes more than once in the parts of {store}")
    return codes[order], ids
