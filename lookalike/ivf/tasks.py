"""Which parts and shards of an index to make: a task each, for `lookalike.transforms.encode`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lookalike.ivf.encoding import EncodeTask
from lookalike.ivf.grouping import GroupTask, list_ranges, list_sizes
from lookalike.ivf.trained_index import TrainedIndex
from lookalike.store.attempts import finished
from lookalike.store.objects import Store


def encode_tasks(
    groups: Sequence[Sequence[str]], folder: str, shard: str, removed: str = ""
) -> list[EncodeTask]:
    """A part of the index for each group of embedding shards; of one alone the finished shard.

    Args:
        groups: Paths of embedding shards, relative to the store.
        folder: Of everything but that finished shard.
        shard: The finished shard's name but for the hash, where there is but one group.
        removed: A .npy file of ids (n,) int64, ascending, to leave out; "" for none.
    """
    whole = len(groups) == 1
    return [
        EncodeTask(
            number,
            tuple(group),
            output=shard if whole else f"{folder}/parts/{number:05d}",
            truth=f"{folder}/truth/{number:05d}",
            done=f"{folder}/encoded/{number:05d}.json",
            whole=whole,
            removed=removed,
        )
        for number, group in enumerate(groups)
    ]


def group_tasks(
    store: Store,
    encoded: Sequence[EncodeTask],
    trained: TrainedIndex,
    shards: int,
    folder: str,
    name: Callable[[int], str],
) -> list[GroupTask]:
    """An index shard for each range of lists, about equally long; none where a part is whole.

    Args:
        store: The store's root.
        encoded: Tasks that are done: their parts are looked into.
        trained: Of the parts.
        shards: How many, at most.
        folder: Of the records.
        name: Gives a shard's name but for the hash, by its number.
    """
    if any(task.whole for task in encoded):
        return []
    parts = tuple(one["shard"]["path"] for one in finished(store, [task.done for task in encoded]))
    ranges = list_ranges(list_sizes(store, parts, trained), shards)
    return [
        GroupTask(number, first, last, parts, name(number), f"{folder}/grouped/{number:05d}.json")
        for number, (first, last) in enumerate(ranges)
    ]
