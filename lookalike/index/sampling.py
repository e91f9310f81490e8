"""Uniform samples of a store's vectors that depend on a seed and the ids alone.

The rows with the smallest hash of (seed, id): the same whatever the order of files, the number of
workers or the retries; sorted folders cannot bias it, as they do a sample of the first rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lookalike.sources.units import mix
from lookalike.store.shards import Ids, Vectors, iter_blocks, iter_ids


def sample_key(seed: int, ids: Ids) -> npt.NDArray[np.uint64]:
    """Sort key of a uniform sample: (n,) uint64, mix(mix(seed) + id) with splitmix64's finaliser.

    A bijection of the ids for each seed, so distinct ids never tie.
    """
    start = mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))
    return mix(start + np.asarray(ids, dtype=np.int64).astype(np.uint64))


def sample_ids(blocks: Iterable[Ids], count: int, seed: int, exclude: Ids | None = None) -> Ids:
    """The `count` ids of smallest key, ascending by id; memory is O(count).

    Args:
        blocks: Streams of ids (n,) int64.
        count: How many; fewer when there are not as many.
        seed: Another seed gives an independent sample.
        exclude: Ids that must not be drawn.
    """
    kept = np.empty(0, dtype=np.int64)
    for block in blocks:
        if exclude is not None:
            block = block[~np.isin(block, exclude)]
        kept = np.concatenate([kept, block])
        if len(kept) > count:
            keys = sample_key(seed, kept)
            kept = kept[np.lexsort((kept, keys))[:count]]
    return np.sort(kept)


def all_ids(store: Path, shards: Iterable[str]) -> Iterator[Ids]:
    """Ids of every shard (paths relative to the store), in blocks."""
    for shard in shards:
        yield from iter_ids(store / shard)


def read_sample(store: Path, shards: Iterable[str], ids: Ids) -> Vectors:
    """Vectors (len(ids), d) float32 by ascending `ids`, in one pass over the shards."""
    parts = []
    for shard in shards:
        for block_ids, vectors in iter_blocks(store / shard):
            chosen = np.isin(block_ids, ids)
            if chosen.any():
                parts.append((block_ids[chosen], vectors[chosen]))
    if not parts:
        return np.empty((0, 0), dtype=np.float32)
    found = np.concatenate([part for part, _ in parts])
    assert len(found) == len(ids), f"{len(ids)} ids sampled, {len(found)} found"
    return np.asarray(np.concatenate([part for _, part in parts])[np.argsort(found)])
