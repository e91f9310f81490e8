"""Sets of hashes in fixed memory, and hashes of contents."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint32]

_BITS = 29  # 64 MiB; of a hundred million rows, two million others let one in 250 pass


class HashFilter:
    """Remembers hashes, some bits of each: what was added is found, and little else is."""

    def __init__(self) -> None:
        """Remember nothing; pages of memory are used as hashes are added."""
        self._bits = np.zeros(1 << (_BITS - 3), dtype=np.uint8)

    def add(self, hashes: Hashes) -> None:
        """Remember (n,) uint32."""
        place = hashes >> np.uint32(32 - _BITS)
        np.bitwise_or.at(self._bits, place >> np.uint32(3), _bit(place))

    def among(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Which of (n,) uint32 may have been added; all that were are."""
        place = hashes >> np.uint32(32 - _BITS)
        found: npt.NDArray[np.bool_] = (self._bits[place >> np.uint32(3)] & _bit(place)) != 0
        return found


def _bit(place: Hashes) -> npt.NDArray[np.uint8]:
    return np.left_shift(np.uint8(1), (place & np.uint32(7)).astype(np.uint8))


def content_hashes(column: pa.Array | pa.ChunkedArray) -> tuple[Hashes, Hashes]:
    """Two hashes, both (n,) uint32, of sha256 digests without nulls, independent of each other."""
    digests = b"".join(column.to_pylist())
    words = np.frombuffer(digests, dtype=">u4").reshape(-1, 8)
    return words[:, 0].astype(np.uint32), words[:, 1].astype(np.uint32)


def content_partitions(column: pa.Array | pa.ChunkedArray, count: int) -> npt.NDArray[np.int64]:
    """Which of `count` parts each digest falls to: (n,) binary(32) -> (n,) int64."""
    return (content_hashes(column)[0].astype(np.int64) * count) >> 32
