"""Uniform samples of a store's vectors that depend on a seed and the ids alone.

The rows with the smallest hash of (seed, id): the same whatever the order of files, the number of
workers or the retries; sorted folders cannot bias it, as they do a sample of the first rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from lookalike.sources.units import mix
from lookalike.store.objects import Store
from lookalike.store.shards import Ids, Vectors, iter_ids
from lookalike.store.vector_reader import VectorReader

Keys = npt.NDArray[np.uint64]

_AT_LEAST = 65_536  # ids to hold before the largest keys are thrown out


def sample_key(seed: int, ids: Ids) -> Keys:
    """Sort key of a uniform sample: (n,) uint64, mix(mix(seed) + id) with splitmix64's finaliser.

    A bijection of the ids for each seed, so distinct ids never tie.
    """
    start = mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))
    return mix(start + np.asarray(ids, dtype=np.int64).astype(np.uint64))


def sample_ids(blocks: Iterable[Ids], count: int, seed: int, exclude: Ids | None = None) -> Ids:
    """The `count` ids of smallest key, ascending by id; memory is O(count) and one block.

    Args:
        blocks: Streams of ids (n,) int64.
        count: How many; fewer when there are not as many.
        seed: Another seed gives an independent sample.
        exclude: Ids that must not be drawn.
    """
    kept_ids, kept_keys = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
    waiting: list[tuple[Ids, Keys]] = [(kept_ids, kept_keys)]
    held, limit = 0, None
    for block in blocks:
        ids = np.asarray(block, dtype=np.int64)
        keys = sample_key(seed, ids)
        if limit is not None:  # most ids of a long stream end here
            there = keys < limit
            ids, keys = ids[there], keys[there]
        if exclude is not None and len(ids):
            there = ~np.isin(ids, exclude)
            ids, keys = ids[there], keys[there]
        waiting.append((ids, keys))
        held += len(ids)
        if held > 2 * count + _AT_LEAST:
            waiting = [_smallest(waiting, count)]
            held = len(waiting[0][0])
            limit = waiting[0][1].max() if held and held == count else limit
    return np.sort(_smallest(waiting, count)[0])


def _smallest(parts: list[tuple[Ids, Keys]], count: int) -> tuple[Ids, Keys]:
    """Ids and keys of the `count` smallest keys, in no order; no two keys are equal."""
    ids = np.concatenate([part for part, _ in parts])
    keys = np.concatenate([part for _, part in parts])
    if len(ids) <= count:
        return ids, keys
    best = np.argpartition(keys, count)[:count]
    return ids[best], keys[best]


def all_ids(store: Store, shards: Iterable[str]) -> Iterator[Ids]:
    """Ids of every shard (paths relative to the store), in blocks."""
    for shard in shards:
        yield from iter_ids(store.parquet(shard))


class Sample:
    """Rows of a store that are read when asked for: `len(sample)`, `sample[rows]` as of an array.

    Training reads a sample in blocks and so need not hold it.
    """

    def __init__(self, reader: VectorReader, ids: Ids) -> None:
        """The vectors of ids (n,), ascending: neighbours lie in one file and are read in order."""
        self._reader, self._ids = reader, ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> Vectors:
        """Vectors of these rows of the sample, (m, d) float32."""
        return self._reader.vectors(self._ids[rows])
