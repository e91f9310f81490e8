"""How a TIFF file lays out its pixels, and which layouts are decoded rightly.

TIFF is a family of formats: the depth, the colour space, the planes, the compression and the order
of bytes and bits are each chosen for themselves. Pillow takes every combination whose name it
knows; those that come out wrong there are named here, and a file of a layout that is not read is
rejected in words that say which it is. tests/test_tiff_layouts.py holds the table.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES, _PLANAR = 258, 259, 262, 266, 277, 284
_TILE_WIDTH, _EXTRA, _SAMPLE_FORMAT, _SUBSAMPLING = 322, 338, 339, 530
_YCBCR, _LAB, _JPEG = 6, 8, (6, 7)
_SUBSAMPLINGS = ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4))
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
          16: 8, 17: 8, 18: 8}  # fmt: skip
_LONG, _LONG8, _IFD8 = 4, 16, 18
_MOST_ENTRIES = 4096
_LONGEST = 256

_SPACES = {0: "gray (white is 0)", 1: "gray", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK",
           6: "YCbCr", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "colour filter",
           32844: "LogL", 32845: "LogLuv", 34892: "linear raw", 51177: "depth map"}  # fmt: skip
_COMPRESSIONS = {1: "uncompressed", 2: "CCITT RLE", 3: "CCITT G3", 4: "CCITT G4", 5: "LZW",
                 6: "old JPEG", 7: "JPEG", 8: "deflate", 32773: "PackBits", 32809: "ThunderScan",
                 32946: "deflate", 34661: "JBIG", 34712: "JPEG 2000", 34676: "SGILog",
                 34887: "LERC", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP",
                 50002: "JPEG XL", 52546: "JPEG XL"}  # fmt: skip
_KINDS = {1: "unsigned", 2: "signed", 3: "float", 4: "untyped", 5: "complex", 6: "complex"}


def tiff_tags(data: bytes) -> dict[int, bytes]:
    """The tags of a TIFF file's first directory, as raw bytes, each 256 at most."""
    return {
        tag: data[at : at + min(size, _LONGEST)] for tag, (_, _, at, size) in _entries(data).items()
    }


def _entries(data: bytes) -> dict[int, tuple[int, int, int, int]]:
    """The entries of the first directory: type, count, where the content is, its size in bytes."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    big = number(2, 2) == 43
    start, room, step, head = (number(8, 8), 8, 20, 8) if big else (number(4, 4), 4, 12, 2)
    count = min(number(start, head), _MOST_ENTRIES)
    found = {}
    for at in range(start + head, start + head + step * count, step):
        if at + step > len(data):
            break
        kind, n = number(at + 2, 2), number(at + 4, room)
        size = _SIZES.get(kind, 1) * n
        field = at + 4 + room
        found[number(at, 2)] = (kind, n, field if size <= room else number(field, room), size)
    return found


def is_big_endian_bigtiff(data: bytes) -> bool:
    """Whether it is a file that Pillow takes for none."""
    return data[:4] == b"MM\0+"


def classic(data: bytes) -> bytes:
    """A BigTIFF of bytes in big-endian order, with its first page as that of a classic TIFF.

    The pixels stay where they are; the directory is written anew behind them. A file is in memory,
    so that no offset of content that is there needs more than 32 bits.
    """
    limit = (1 << 32) - 1
    entries, tail = [], bytearray()
    end = len(data) + len(data) % 2
    for tag, (kind, n, at, size) in sorted(_entries(data).items()):
        content = data[at : at + size]
        if kind in (_LONG8, _IFD8):
            whole = len(content) // 8
            numbers = struct.unpack(f">{whole}Q", content[: 8 * whole])
            content = struct.pack(f">{whole}I", *(min(value, limit) for value in numbers))
            kind, n = _LONG, whole
        entries.append((tag, kind, n, content))
    head = 2 + 12 * len(entries) + 4
    directory = bytearray(struct.pack(">H", len(entries)))
    for tag, kind, n, content in entries:
        if len(content) > 4:
            field = struct.pack(">I", end + head + len(tail))
            tail += content + bytes(len(content) % 2)
        else:
            field = content.ljust(4, b"\0")
        directory += struct.pack(">HHI", tag, kind, min(n, limit)) + field
    padding = bytes(end - len(data))
    start = b"MM\0*" + struct.pack(">I", end)
    return b"".join((start, memoryview(data)[8:], padding, directory, bytes(4), tail))


@dataclass(frozen=True)
class Layout:
    """What the tags say of the pixels.

    Attributes:
        photometric: the number of the colour space; 0 where none is said, as Pillow has it.
        bits: of each sample.
        formats: the numbers of the samples' types.
        extra: what samples beyond the colours mean.
        planar: 2 where each sample has a plane of its own.
        compression: its number.
        fill_order: 2 where the bits of every byte are turned round.
        subsampling: (across, down) of the colours, in YCbCr.
        tiled: whether there are tiles, not strips.
    """

    photometric: int
    bits: tuple[int, ...]
    formats: tuple[int, ...]
    extra: tuple[int, ...]
    planar: int
    compression: int
    fill_order: int
    subsampling: tuple[int, ...]
    tiled: bool

    def __str__(self) -> str:
        """Such as "RGB, 3 x 32-bit float, in planes, LZW"."""
        bits = " + ".join(map(str, dict.fromkeys(self.bits)))
        kinds = "/".join(_KINDS.get(f, f"type {f}") for f in dict.fromkeys(self.formats))
        words = [
            _SPACES.get(self.photometric, f"colour space {self.photometric}"),
            f"{len(self.bits)} x {bits}-bit {kinds}",
            "in planes" if self.planar == 2 else "in one plane",
            _COMPRESSIONS.get(self.compression, f"compression {self.compression}"),
        ]
        if self.photometric == _YCBCR:
            words[0] += " {} x {}".format(*self.subsampling)
        if self.extra:
            words.insert(2, f"{len(self.extra)} of them beside the colours")
        return ", ".join(words)


def layout(data: bytes) -> Layout:
    """The layout of the first page."""
    order = "<" if data[:2] == b"II" else ">"
    entries = _entries(data)

    def numbers(tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        kind, n, at, _ = entries.get(tag, (0, 0, 0, 0))
        code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
        n = min(n, 16)
        if not code or not n or at + n * _SIZES[kind] > len(data):
            return default
        return tuple(struct.unpack_from(f"{order}{n}{code}", data, at))

    samples = max(1, min(numbers(_SAMPLES, (1,))[0], 16))
    bits = numbers(_BITS, (1,))
    return Layout(
        photometric=numbers(_PHOTOMETRIC, (0,))[0],
        bits=bits * samples if len(bits) == 1 else bits[:samples],
        formats=numbers(_SAMPLE_FORMAT, (1,)),
        extra=numbers(_EXTRA, ()),
        planar=numbers(_PLANAR, (1,))[0],
        compression=numbers(_COMPRESSION, (1,))[0],
        fill_order=numbers(_FILL_ORDER, (1,))[0],
        subsampling=(*numbers(_SUBSAMPLING, (2, 2)), 1)[:2],
        tiled=_TILE_WIDTH in entries,
    )


def needs_libtiff(found: Layout) -> bool:
    """Whether an uncompressed file must be decoded by libtiff as compressed ones are.

    Pillow's own code takes a plane's samples for those of all planes, and YCbCr for RGB; and bits
    that are turned round it knows of some depths alone.
    """
    return found.planar == 2 or found.photometric == _YCBCR or found.fill_order == 2


def decoded_wrongly(found: Layout) -> bool:
    """Whether a layout that Pillow knows by name comes out wrong there, or not at all."""
    if found.formats[0] == 2 and found.bits[0] <= 8:
        return True  # below 0, dark and light are exchanged
    if found.photometric == _YCBCR and found.compression not in _JPEG:
        if found.subsampling not in _SUBSAMPLINGS:
            return True
        if found.subsampling == (4, 4) and found.tiled:
            return True  # those at the right edge
    if found.planar != 2:
        return False
    if found.photometric == _YCBCR:
        whole = found.subsampling == (1, 1) or found.compression in _JPEG
        return len(found.bits) > 3 or not whole
    if found.photometric == _LAB:
        return True
    gray_and_alpha = len(found.bits) == 2 and any(found.extra)  # the second plane is left out
    return gray_and_alpha or (len(found.bits) > 4 and any(found.extra))
