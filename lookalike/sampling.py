"""Uniform samples of a store's vectors that depend on a seed and the ids alone.

The rows with the smallest hash of (seed, id): the same whatever the order of files, the number of
workers or the retries; sorted folders cannot bias it, as they do a sample of the first rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids
from lookalike.sources.units import mix

Keys = npt.NDArray[np.uint64]

ALL = 2**64 - 1  # a limit that no key is above
_AT_LEAST = 65_536  # ids to hold before the largest keys are thrown out


def sample_key(seed: int, ids: Ids) -> Keys:
    """Sort key of a uniform sample: (n,) uint64, mix(mix(seed) + id) with splitmix64's finaliser.

    A bijection of the ids for each seed, so distinct ids never tie.
    """
    start = mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))
    return mix(start + np.asarray(ids, dtype=np.int64).astype(np.uint64))


def sample_ids(blocks: Iterable[Ids], count: int, seed: int, limit: int = ALL) -> Ids:
    """The `count` ids of smallest key, ascending by id; memory is O(count) and one block.

    Args:
        blocks: Streams of ids (n,) int64.
        count: How many; fewer when there are not as many.
        seed: Another seed gives an independent sample.
        limit: Ids with a larger key must not be drawn.
    """
    kept_ids, kept_keys = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
    waiting: list[tuple[Ids, Keys]] = [(kept_ids, kept_keys)]
    held = 0
    for block in blocks:
        ids = np.asarray(block, dtype=np.int64)
        keys = sample_key(seed, ids)
        if limit < ALL:  # most ids of a long stream end here
            there = keys <= np.uint64(limit)
            ids, keys = ids[there], keys[there]
        waiting.append((ids, keys))
        held += len(ids)
        if held > 2 * count + _AT_LEAST:
            waiting = [_smallest(waiting, count)]
            held = len(waiting[0][0])
            if held and held == count:
                limit = min(limit, int(waiting[0][1].max()))
    return np.sort(_smallest(waiting, count)[0])


def smallest(ids: Ids, count: int, seed: int) -> npt.NDArray[np.intp]:
    """Positions of the `count` ids of smallest key among ids (n,), in no order."""
    return _positions(sample_key(seed, ids), count)


def _smallest(parts: list[tuple[Ids, Keys]], count: int) -> tuple[Ids, Keys]:
    """Ids and keys of the `count` smallest keys, in no order; no two keys are equal."""
    ids = np.concatenate([part for part, _ in parts])
    keys = np.concatenate([part for _, part in parts])
    best = _positions(keys, count)
    return ids[best], keys[best]


def _positions(keys: Keys, count: int) -> npt.NDArray[np.intp]:
    if len(keys) <= count:
        return np.arange(len(keys))
    return np.argpartition(keys, count)[:count]
