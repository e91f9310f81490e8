"""Sets of hashes in bounded memory, and hashes of contents."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint32]
Bits = npt.NDArray[np.uint8]

_LEAST_BITS, _MOST_BITS = 16, 29  # 8 KiB, 64 MiB
_BITS_EACH = 256  # so many times as many bits as hashes: one in so many others is let in


class HashFilter:
    """Remembers the leading bits of hashes: what was added is found, and little else is.

    Attributes:
        data: (bytes,) uint8. Of the hashes that fall to one of several parts of equal size, a power
            of two, it is the part with the same number.
    """

    def __init__(self, hashes: int = 0, data: Bits | None = None) -> None:
        """Remember nothing, with room for so many hashes; or what the data of another did.

        It has 64 MiB at most, where two million hashes let one in 250 others in; and pages of
        memory are used as hashes are added.
        """
        if data is None:
            bits = min(_MOST_BITS, max(_LEAST_BITS, (_BITS_EACH * hashes).bit_length()))
            data = np.zeros(1 << (bits - 3), dtype=np.uint8)
        self.data = data
        self._shift = np.uint32(32 - (len(data).bit_length() + 2))

    def add(self, hashes: Hashes) -> None:
        """Remember (n,) uint32."""
        place = hashes >> self._shift
        np.bitwise_or.at(self.data, place >> np.uint32(3), _bit(place))

    def among(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Which of (n,) uint32 may have been added; all that were are."""
        place = hashes >> self._shift
        found: npt.NDArray[np.bool_] = (self.data[place >> np.uint32(3)] & _bit(place)) != 0
        return found

    def part(self, number: int, count: int) -> Bits:
        """What is remembered of the hashes of one part."""
        size = len(self.data) // count
        return self.data[number * size : (number + 1) * size]


def _bit(place: Hashes) -> Bits:
    return np.left_shift(np.uint8(1), (place & np.uint32(7)).astype(np.uint8))


def content_hashes(column: pa.Array | pa.ChunkedArray) -> Hashes:
    """The first four bytes of sha256 digests without nulls: (n,) uint32."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    found = [np.empty(0, dtype=np.uint32)]
    for chunk in chunks:
        words = np.frombuffer(chunk.buffers()[1] or b"", dtype=">u4")[::8]
        found.append(words[chunk.offset : chunk.offset + len(chunk)].astype(np.uint32))
    return np.concatenate(found)


def content_partitions(column: pa.Array | pa.ChunkedArray, count: int) -> npt.NDArray[np.int64]:
    """Which of `count` parts each digest falls to: (n,) binary(32) -> (n,) int64."""
    return (content_hashes(column).astype(np.int64) * count) >> 32
