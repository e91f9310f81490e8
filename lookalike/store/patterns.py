"""Finding any of many byte strings in large files, in one pass.

Of each string, the eight bytes that are least likely to occur elsewhere are chosen as its anchor.
Every eight consecutive bytes of the file are hashed and looked up in a table of the anchors'
hashes. At the few places that the table names, the strings with that anchor are compared in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SHORTEST = 8
_BLOCK = 1 << 20
_BITS = 20
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - _BITS)


class Patterns:
    """Byte strings to look for, each of at least SHORTEST bytes; numbered as given."""

    def __init__(self, patterns: Sequence[bytes]) -> None:
        """Choose anchors.

        Raises:
            ValueError: A pattern is too short.
        """
        short = next((one for one in patterns if len(one) < SHORTEST), None)
        if short is not None:
            raise ValueError(f"patterns have at least {SHORTEST} bytes, got {short!r}")
        self.patterns = list(patterns)
        self._by_anchor: dict[int, list[tuple[int, int]]] = {}
        for number, pattern in enumerate(self.patterns):
            offset = _anchor(pattern)
            key = int.from_bytes(pattern[offset : offset + SHORTEST], "little")
            self._by_anchor.setdefault(key, []).append((number, offset))
        keys = np.array(sorted(self._by_anchor), dtype=np.uint64)
        self._table = np.zeros(1 << _BITS, dtype=bool)
        self._table[_hashes(keys)] = True

    def find(self, data: Any) -> Iterator[tuple[int, int]]:
        """Number and position of every occurrence in bytes, a memory map or another buffer."""
        view = np.frombuffer(data, np.uint8)
        for start in range(0, max(0, len(view) - SHORTEST + 1), _BLOCK):
            block = view[start : start + _BLOCK + SHORTEST - 1]
            for shift in range(min(SHORTEST, len(block) - SHORTEST + 1)):
                count = (len(block) - shift) // SHORTEST
                words = block[shift : shift + count * SHORTEST].view("<u8")
                for at in np.flatnonzero(self._table[_hashes(words)]).tolist():
                    position = start + shift + SHORTEST * at
                    for number, offset in self._by_anchor.get(int(words[at]), ()):
                        begin = position - offset
                        pattern = self.patterns[number]
                        there = view[max(0, begin) : max(0, begin) + len(pattern)]
                        if begin >= 0 and there.tobytes() == pattern:
                            yield number, begin


def _hashes(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return (words * _FACTOR) >> _SHIFT


def _anchor(pattern: bytes) -> int:
    """Where the anchor of a string begins: the eight bytes with the most different values.

    Of several such places it is the last one, since names of files differ at their ends.
    """
    starts = range(len(pattern) - SHORTEST + 1)
    return max(starts, key=lambda start: (len(set(pattern[start : start + SHORTEST])), start))
