"""Ranges of a file that lie near each other, read by one request, which costs more than bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

GAP = 64 << 10  # bytes between two that are fetched for nothing rather than by a request more
MOST = 2 << 20  # bytes of one request for several


@dataclass(frozen=True)
class Span:
    """One request: first byte, number of bytes, and which of the ranges asked for lie in it."""

    start: int
    count: int
    wanted: tuple[int, ...]


def check(ranges: Sequence[tuple[int, int]]) -> None:
    """Refuse what is no range of any file.

    Raises:
        ValueError: One begins before the file, or has fewer than no bytes.
    """
    for start, count in ranges:
        if start < 0 or count < 0:
            raise ValueError(f"no range of a file: {count} bytes from {start} on")


def coalesce(ranges: Sequence[tuple[int, int]], gap: int = GAP, most: int = MOST) -> list[Span]:
    """The requests that bring all ranges, in the order of the file; empty ranges need none.

    Args:
        ranges: First byte and number of bytes of each, in any order; they may overlap.
        gap: Most bytes between two in one request.
        most: Most bytes of a request for more than one.

    Raises:
        ValueError: See `check`.
    """
    check(ranges)
    spans: list[Span] = []
    for place in sorted(range(len(ranges)), key=lambda place: ranges[place]):
        start, count = ranges[place]
        if not count:
            continue
        if spans:
            last = spans[-1]
            end = max(last.start + last.count, start + count)
            inside = end == last.start + last.count
            near = start - (last.start + last.count) <= gap and end - last.start <= most
            if inside or near:
                spans[-1] = Span(last.start, end - last.start, (*last.wanted, place))
                continue
        spans.append(Span(start, count, (place,)))
    return spans


def cut(ranges: Sequence[tuple[int, int]], span: Span, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Which of the ranges asked for lie in a span, and the bytes of each, from those of all."""
    for place in span.wanted:
        start, count = ranges[place]
        yield place, data[start - span.start : start - span.start + count]


class RangedFile(io.RawIOBase):
    """A file of known size, each reading of which is one request: to be read through a buffer."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        """`fetch` gives the bytes from a first one on, as many as are asked for."""
        self._size, self._fetch, self._at = size, fetch, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, which may lie beyond the end; nothing is asked for."""
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError(f"no byte {at} in a file")
        self._at = at
        return at

    def tell(self) -> int:
        """Where the next reading begins."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As many bytes as there is room for, less only at the end."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        if count:
            view[:count] = self._fetch(self._at, count)
            self._at += count
        return count

    def readall(self) -> bytes:
        """All that is left, in one request."""
        return self.read(max(0, self._size - self._at)) or b""


def parts_file(ranges: Sequence[tuple[int, int]], data: Sequence[bytes]) -> RangedFile:
    """A file of which only some ranges are here, for who reads just those, each at once."""
    parts = {start: own for (start, _), own in zip(ranges, data, strict=True)}
    size = max((start + count for start, count in ranges), default=0)
    return RangedFile(size, lambda start, count: parts[start][:count])
