"""HEIC pictures made of tiles, and each of their tiles as a file of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lookalike.images.containers import boxes
from lookalike.images.heif_properties import Items

_MOST_TILES = 65536
_LEFT_OUT = frozenset({b"clap", b"irot", b"imir", b"auxC"})


@dataclass(frozen=True)
class Grid:
    """A picture of equal tiles, row by row, of which the last ones reach beyond its edges.

    Attributes:
        width: of the picture, before it is turned.
        height: of the picture, before it is turned.
        columns: tiles in a row.
        tile_width: pixels across of a tile.
        tile_height: pixels down of a tile.
        tiles: numbers of the items.
    """

    width: int
    height: int
    columns: int
    tile_width: int
    tile_height: int
    tiles: tuple[int, ...]


def grid(data: bytes) -> Grid | None:
    """The tiles of a HEIC file's primary picture; None where it has none, or has alpha beside."""
    items = Items.read(data)
    if next(items.alphas(), None) is not None:
        return None
    if _types(data).get(items.primary) != b"grid":
        return None
    head = b"".join(_content(data, _places(data).get(items.primary, [])))
    tiles = next((to for item, to in items.derived if item == items.primary), [])
    wide = len(head) > 1 and head[1] & 1
    if len(head) < (12 if wide else 8):
        return None
    rows, columns = head[2] + 1, head[3] + 1
    width, height = struct.unpack_from(">II" if wide else ">HH", head, 4)
    if len(tiles) != rows * columns or len(tiles) > _MOST_TILES or not width or not height:
        return None
    sizes = {
        content[4:12]
        for tile in set(tiles)
        for kind, content in items.properties(tile)
        if kind == b"ispe"
    }
    if len(sizes) != 1 or len(size := sizes.pop()) != 8:
        return None
    across, down = struct.unpack(">II", size)
    if across * columns < width or down * rows < height or not across or not down:
        return None
    return Grid(width, height, columns, across, down, tuple(tiles))


def tile_files(data: bytes, found: Grid) -> Iterator[bytes]:
    """Each tile as a HEIC file with that one picture, in order."""
    items, places = Items.read(data), _places(data)
    for tile in found.tiles:
        coded = b"".join(_content(data, places.get(tile, [])))
        known = [one for one in items.properties(tile) if one[0] not in _LEFT_OUT]
        yield _file(coded, known)


def _file(coded: bytes, known: list[tuple[bytes, bytes]]) -> bytes:
    """A file of one picture coded by HEVC.

    Args:
        coded: its bytes.
        known: types and contents of its properties.
    """
    associated = bytes(
        0x80 | (i + 1) if kind == b"hvcC" else i + 1 for i, (kind, _) in enumerate(known[:100])
    )
    properties = b"".join(_box(kind, content) for kind, content in known[:100])
    ipma = struct.pack(">IIHB", 0, 1, 1, len(associated)) + associated
    start = _box(b"ftyp", b"heic", bytes(4), b"mif1heic")

    def meta(at: int) -> bytes:
        return _box(
            b"meta",
            bytes(4),
            _box(b"hdlr", bytes(8), b"pict", bytes(13)),
            _box(b"pitm", bytes(4), struct.pack(">H", 1)),
            _box(
                b"iinf",
                bytes(4),
                struct.pack(">H", 1),
                _box(b"infe", b"\2\0\0\0", struct.pack(">HH", 1, 0), b"hvc1\0"),
            ),
            _box(b"iprp", _box(b"ipco", properties), _box(b"ipma", ipma)),
            _box(b"iloc", bytes(4), b"\x44\0", struct.pack(">HHHHII", 1, 1, 0, 1, at, len(coded))),
        )

    return start + meta(len(start) + len(meta(0)) + 8) + _box(b"mdat", coded)


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _meta(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    start = next(((at + 4, end) for kind, at, end in boxes(data) if kind == b"meta"), (0, 0))
    for kind, at, end in boxes(data, *start):
        yield kind, at, min(end, len(data))


def _types(data: bytes) -> dict[int, bytes]:
    """The types of items."""
    types = {}
    for kind, at, end in _meta(data):
        if kind == b"iinf":
            for inner, start, stop in boxes(data, at + (6 if data[at] == 0 else 8), end):
                if inner == b"infe" and start + 12 <= stop:
                    wide = 2 if data[start] < 3 else 4
                    item = int.from_bytes(data[start + 4 : start + 4 + wide], "big")
                    types[item] = data[start + 6 + wide : start + 10 + wide]
    return types


def _content(data: bytes, extents: list[tuple[int, int]]) -> Iterator[bytes]:
    for at, length in extents:
        yield data[at : at + length]


def _places(data: bytes) -> dict[int, list[tuple[int, int]]]:
    """Where the content of items lies in the file: offset and length of each part."""
    within = next((at for kind, at, _ in _meta(data) if kind == b"idat"), 0)
    places: dict[int, list[tuple[int, int]]] = {}
    for kind, at, end in _meta(data):
        if kind != b"iloc" or at + 8 > end:
            continue
        version, sizes, bases = data[at], data[at + 4], data[at + 5]
        reader = _Reader(data, at + 6, end)
        for _ in range(reader.number(2 if version < 2 else 4)):
            if reader.at >= end:
                break
            item = reader.number(2 if version < 2 else 4)
            method = reader.number(2) & 15 if version else 0
            reader.number(2)
            base = reader.number(bases >> 4) + (within if method == 1 else 0)
            extents = places.setdefault(item, [])
            for _ in range(reader.number(2)):
                if reader.at >= end:
                    break
                reader.number(bases & 15 if version else 0)
                place = base + reader.number(sizes >> 4)
                extents.append((place, reader.number(sizes & 15) or len(data)))
    return places


@dataclass
class _Reader:
    data: bytes
    at: int
    end: int

    def number(self, length: int) -> int:
        self.at += length
        return int.from_bytes(self.data[self.at - length : min(self.at, self.end)], "big")
