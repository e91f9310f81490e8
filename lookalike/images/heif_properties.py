"""What a HEIC or AVIF file says of its picture beside the coded pixels: crops, turns, colour.

libheif carries out crops and turns itself. libavif leaves them to its caller, and Pillow, the
caller, does the turns alone and in a fixed order. Here they are read as libheif reads them, in the
order of the file, so that a picture looks the same in both formats.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from lookalike.images.containers import boxes

Properties = Sequence[tuple[bytes, bytes]]
"""Types and contents of a picture's properties, in the order in which they are carried out."""

Box = tuple[int, int, int, int]
"""The left, upper, right and lower edge of a part of a picture, as in Pillow."""

_TURNS = frozenset({b"clap", b"irot", b"imir"})
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")
# transposed, then top and bottom exchanged, then left and right: as `pixels.upright` does it
_ORIENTATION = {
    (False, False, False): 1,
    (False, False, True): 2,
    (False, True, True): 3,
    (False, True, False): 4,
    (True, False, False): 5,
    (True, False, True): 6,
    (True, True, True): 7,
    (True, True, False): 8,
}


@dataclass(frozen=True)
class Placement:
    """The part of a stored picture that is shown, and how it must be turned."""

    box: Box | None = None
    orientation: int = 1


def properties(data: bytes) -> Properties:
    """The properties of the picture that is decoded: of the first track, or of the primary item."""
    if data[8:12] == b"avis" and (entry := _sample_entry(data)):
        return entry
    items = Items.read(data)
    return items.properties(items.primary)


def placement(found: Properties, width: int, height: int) -> Placement:
    """What the crops, turns and mirrors among a picture's properties come to, one by one.

    Returns:
        One crop of the coded picture, and one turn of what it leaves. A crop that leaves nothing,
        or makes no sense, counts for nothing.
    """
    left, top, right, bottom = 0, 0, width, height
    transposed = down = across = False
    for kind, content in found:
        if kind == b"irot" and content:
            for _ in range(content[0] & 3):  # a quarter, anticlockwise
                transposed, down, across = not transposed, not across, down
        elif kind == b"imir" and content:
            down, across = (down, not across) if content[0] & 1 else (not down, across)
        elif kind == b"clap":
            size = (right - left, bottom - top)
            part = _aperture(content, *(size[::-1] if transposed else size))
            if part is None:
                continue
            x0, y0, x1, y1 = _turned_back(part, size, transposed, down, across)
            left, top, right, bottom = left + x0, top + y0, left + x1, top + y1
    box = (left, top, right, bottom)
    orientation = _ORIENTATION[transposed, down, across]
    return Placement(None if box == (0, 0, width, height) else box, orientation)


def _turned_back(
    part: Box, size: tuple[int, int], transposed: bool, down: bool, across: bool
) -> Box:
    """A part of a turned picture, in the picture as it was before; `size` is the latter's."""
    left, top, right, bottom = part
    width, height = size[::-1] if transposed else size
    if across:
        left, right = width - right, width - left
    if down:
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if transposed else (left, top, right, bottom)


def _aperture(content: bytes, width: int, height: int) -> Box | None:
    """What a clean aperture cuts from a picture of that size, rounded as libheif rounds it."""
    if len(content) < 32:
        return None
    numbers = struct.unpack(">8i", content[:32])
    if min(numbers[:4] + numbers[5::2]) <= 0:  # no size, or a denominator that is none
        return None
    across, down, right_by, down_by = (
        Fraction(n, d) for n, d in zip(numbers[::2], numbers[1::2], strict=True)
    )
    # int() cuts off what follows the point, of negative numbers too
    left = int(right_by + Fraction(width - 1, 2) - (across - 1) / 2)
    top = int(down_by + Fraction(height - 1, 2) - (down - 1) / 2 + Fraction(1, 2))
    right = int(across - 1 + left + Fraction(1, 2)) + 1
    bottom = int(down - 1 + top + Fraction(1, 2)) + 1
    box = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))
    return box if box[0] < box[2] and box[1] < box[3] else None


def decoder_turns(data: bytes) -> bool:
    """Whether a HEIC file's alpha plane is cropped and turned like its colours.

    libheif does to each what is said of it, and what is said of the colours alone leaves an alpha
    plane that lies across them.
    """
    items = Items.read(data)
    mine = [one for one in items.properties(items.primary) if one[0] in _TURNS]
    return all(
        [one for one in items.properties(alpha) if one[0] in _TURNS] == mine
        for alpha in items.alphas()
    )


def without_turns(data: bytes) -> bytes:
    """A file of the same length and pictures, of which the primary one is neither cut nor turned.

    Of the associations of properties with items, those that are left out become number 0, which
    stands for none.
    """
    items = Items.read(data)
    changed = bytearray(data)
    for item in (items.primary, *items.alphas()):
        for index, at, length in items.associated.get(item, ()):
            if 0 < index <= len(items.known) and items.known[index - 1][0] in _TURNS:
                changed[at : at + length] = bytes(length)
    return bytes(changed)


@dataclass
class Items:
    """What `meta` says of items: properties, and which of them each has, with where that stands."""

    primary: int = -1
    known: list[tuple[bytes, bytes]] = field(default_factory=list)
    associated: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    auxiliary: list[tuple[int, list[int]]] = field(default_factory=list)
    derived: list[tuple[int, list[int]]] = field(default_factory=list)

    @classmethod
    def read(cls, data: bytes) -> Items:
        """What a file says; nothing where that makes no sense."""
        items = cls()
        meta = next(((at + 4, end) for kind, at, end in boxes(data) if kind == b"meta"), (0, 0))
        for kind, at, end in boxes(data, *meta):
            wide = 4 if data[at : at + 1] != b"\0" else 2
            if kind == b"pitm":
                items.primary = int.from_bytes(data[at + 4 : at + 4 + wide], "big")
            elif kind == b"iref":
                for reference, start, stop in boxes(data, at + 4, end):
                    if reference in (b"auxl", b"dimg"):
                        into = items.auxiliary if reference == b"auxl" else items.derived
                        into.append(_reference(data, start, min(stop, len(data)), wide))
            elif kind == b"iprp":
                for inner, start, stop in boxes(data, at, end):
                    if inner == b"ipco":
                        found = boxes(data, start, stop)
                        items.known = [(k, data[a : min(e, stop)]) for k, a, e in found]
                    elif inner == b"ipma":
                        items._read_associations(data, start, min(stop, len(data)))
        return items

    def properties(self, item: int) -> Properties:
        """Those of one item."""
        numbers = [index for index, _, _ in self.associated.get(item, ())]
        return [self.known[n - 1] for n in numbers if 0 < n <= len(self.known)]

    def alphas(self) -> Iterator[int]:
        """The items that are the primary one's alpha plane."""
        for item, to in self.auxiliary:
            if self.primary in to and any(
                kind == b"auxC" and content[4:].startswith(_ALPHA)
                for kind, content in self.properties(item)
            ):
                yield item

    def _read_associations(self, data: bytes, at: int, end: int) -> None:
        wide = 4 if data[at : at + 1] != b"\0" else 2
        length = 2 if data[at + 3 : at + 4] and data[at + 3] & 1 else 1
        at += 8
        while at + wide < end:
            item = int.from_bytes(data[at : at + wide], "big")
            first = at + wide + 1
            at = first + data[first - 1] * length
            if at > end:
                return
            self.associated.setdefault(item, []).extend(
                (
                    int.from_bytes(data[i : i + length], "big") & (0x7FFF if length == 2 else 0x7F),
                    i,
                    length,
                )
                for i in range(first, at, length)
            )


def _reference(data: bytes, at: int, end: int, wide: int) -> tuple[int, list[int]]:
    """An item, and those that it refers to."""
    starts = (at, *range(at + wide + 2, end - wide + 1, wide))
    item, *to = (int.from_bytes(data[i : i + wide], "big") for i in starts)
    return item, to


def _sample_entry(data: bytes) -> Properties:
    """The boxes that describe the frames of an AVIF sequence's first track of pictures."""
    for kind, at, end in boxes(data):
        for track, start, stop in boxes(data, at, end) if kind == b"moov" else ():
            where = [(start, stop)] if track == b"trak" else []
            for wanted, head in ((b"mdia", 0), (b"minf", 0), (b"stbl", 0), (b"stsd", 8)):
                where = [
                    (a + head, e) for s, t in where for k, a, e in boxes(data, s, t) if k == wanted
                ]
            for s, t in where:
                for entry, a, e in boxes(data, s, t):
                    if entry == b"av01":  # after the 78 bytes of every visual sample
                        return [(k, data[b:f]) for k, b, f in boxes(data, a + 78, min(e, t))]
    return ()
