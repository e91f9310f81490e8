"""Which rows a search may return, as a set of ids that Faiss asks while it scans.

The set has one bit for each possible id. Ids of two files are 2^32 apart, so nearly all of that
address space is never touched, and the system gives memory only to the pages that are: a file of
65,536 rows takes 8 KiB.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids

Bits = npt.NDArray[np.uint8]

# Python has the name from 3.13 on.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class Selection:
    """Rows that may be returned: some ids, or all but some.

    Attributes:
        ids: (n,) int64, ascending and distinct.
        inverted: Whether `ids` are those that may not.
    """

    def __init__(self, ids: Ids, inverted: bool = False) -> None:
        self.ids, self.inverted = np.ascontiguousarray(ids, dtype=np.int64), inverted

    @cached_property
    def bits(self) -> Bits | None:
        """Bit id % 8 of byte id // 8 is 1 for `ids`; None where the system has no such memory."""
        size = int(self.ids[-1] >> 3) + 1 if len(self.ids) else 1
        try:
            bits = _sparse(size)
        except (OSError, OverflowError, ValueError):
            return None
        starts = np.flatnonzero(np.diff(self.ids >> 32, prepend=-1)).tolist()
        for start, end in zip(starts, [*starts, len(self.ids)][1:], strict=True):
            base = int(self.ids[start] >> 32 << 32)
            rows = self.ids[start:end] - base
            packed = np.zeros((int(rows[-1]) // 8 + 1) * 8, dtype=np.uint8)
            packed[rows] = 1
            packed = np.packbits(packed, bitorder="little")
            bits[base >> 3 : (base >> 3) + len(packed)] = packed
        return bits


def _sparse(size: int) -> Bits:
    """Zeros of which only what is written takes memory, and no swap is set aside for the rest."""
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        raise OSError("no anonymous mappings here")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    mapped = mmap.mmap(-1, size, flags=flags)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # one bit would take 2 MiB
        with suppress(OSError):  # a kernel without huge pages knows no such advice
            mapped.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(mapped, dtype=np.uint8)


def difference(ids: Ids, without: Ids) -> Ids:
    """The ids (n,) that are not among others (m,), both ascending and distinct."""
    if not len(without):
        return ids
    at = np.minimum(np.searchsorted(without, ids), len(without) - 1)
    return np.asarray(ids[without[at] != ids])
