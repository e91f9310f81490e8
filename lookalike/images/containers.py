"""The structure of image files, read without decoding: boxes, chunks, directories, entries.

What they announce (sizes, frames, where the file should end) is wanted before a decoder may
allocate by it, and to tell a file that was cut from one that is broken. The bytes may be anything:
every function returns None, or a number that a limit can judge, where the structure makes no sense.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_CODESTREAM = b"\xff\x4f\xff\x51"


def boxes(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an ISO base media or JPEG 2000 file: type, start of content, end.

    The end of the last may lie beyond the data, where the file was cut.
    """
    stop = len(data) if stop is None else min(stop, len(data))
    while start + 8 <= stop:
        size, kind, head = int.from_bytes(data[start : start + 4], "big"), data[start + 4 :][:4], 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        end = start + size if size else stop
        if end < start + head:
            return
        yield kind, start + head, end
        start = end


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a WebP file: type, start of content, end."""
    start = 12
    while start + 8 <= len(data):
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        yield data[start : start + 4], start + 8, start + 8 + size
        start += 8 + size + size % 2


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG file: type, start of content, end (where the checksum stands)."""
    start = 8
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        yield data[start + 4 : start + 8], start + 8, end
        start = end + 4


def png_sums_hold(data: bytes) -> bool:
    """Whether a PNG's pixel data pass their checksums, which Pillow does not look at."""
    view = memoryview(data)
    return all(
        zlib.crc32(view[start - 4 : end]) == int.from_bytes(data[end : end + 4], "big")
        for kind, start, end in png_chunks(data)
        if kind == b"IDAT" and end + 4 <= len(data)
    )


def webp_canvas(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and number of frames that a WebP file announces."""
    frames = 0
    size = None
    for kind, start, _ in riff_chunks(data):
        head = data[start : start + 10]
        if len(head) < 10:
            break
        if size is None and kind == b"VP8X":
            size = (1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:], "little"))
        elif size is None and kind == b"VP8L":
            bits = int.from_bytes(head[1:5], "little")
            size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif size is None and kind == b"VP8 ":
            width, height = struct.unpack("<HH", head[6:10])
            size = (width & 0x3FFF, height & 0x3FFF)
        frames += kind == b"ANMF"
    return (*size, max(1, frames)) if size else None


def webp_first_frame(data: bytes) -> tuple[int, int, int, int] | None:
    """The part of an animated WebP's canvas that its first frame covers, as in Pillow."""
    for kind, start, _ in riff_chunks(data):
        if kind == b"ANMF":
            left, top, width, height = (
                int.from_bytes(data[start + at : start + at + 3], "little") for at in (0, 3, 6, 9)
            )
            return 2 * left, 2 * top, 2 * left + width + 1, 2 * top + height + 1
    return None


def heif_size(data: bytes) -> tuple[int, int]:
    """Width and height of the largest picture that a HEIC or AVIF file announces; 0 where none."""
    sizes = [(0, 0)]
    for kind, at, _ in _boxes_within(data, (b"meta", 4), (b"iprp", 0), (b"ipco", 0)):
        if kind == b"ispe" and at + 12 <= len(data):
            sizes.append(struct.unpack(">II", data[at + 4 : at + 12]))
    return max(sizes, key=lambda size: size[0] * size[1])


def heif_names_are_text(data: bytes) -> bool:
    """Whether the types and names of a HEIC file's items are UTF-8, which pi_heif relies on."""
    version = data[data.find(b"iinf") + 4 :][:1]  # its count of items has 16 or 32 bits
    for kind, at, end in _boxes_within(data, (b"meta", 4), (b"iinf", 6 if version == b"\0" else 8)):
        if kind == b"infe":
            try:
                data[at + (8 if data[at : at + 1] < b"\3" else 10) : end].decode()
            except UnicodeDecodeError:
                return False
    return True


def _boxes_within(data: bytes, *path: tuple[bytes, int]) -> Iterator[tuple[bytes, int, int]]:
    """The boxes in a box, found by the types on the way to it and the bytes that come before."""
    at, stop = 0, len(data)
    for wanted, head in path:
        found = [(start, end) for kind, start, end in boxes(data, at, stop) if kind == wanted]
        if not found:
            return
        at, stop = found[0][0] + head, found[0][1]
    yield from boxes(data, at, stop)


def jpeg2000_size(data: bytes) -> tuple[int, int, int, int] | None:
    """Width, height, components and bits of the codestream, which the decoder allocates by."""
    start = _codestream(data)
    siz = data[start + 4 : start + 43]
    if start < 0 or len(siz) < 39:
        return None
    width, height, left, top = struct.unpack(">4I", siz[4:20])
    return width - left, height - top, int.from_bytes(siz[36:38], "big"), (siz[38] & 0x7F) + 1


def _codestream(data: bytes) -> int:
    """Where the JPEG 2000 codestream begins, in its box or as the whole file; -1 where nowhere."""
    if data.startswith(_CODESTREAM):
        return 0
    starts = (start for kind, start, _ in boxes(data) if kind == b"jp2c")
    return next((start for start in starts if data.startswith(_CODESTREAM, start)), -1)


def largest_icon(data: bytes) -> tuple[bytes, int, int] | None:
    """The icon of the most pixels, then bits, as an ICO file of its own; its width and height."""
    entries = []
    for at in range(6, min(6 + 16 * int.from_bytes(data[4:6], "little"), len(data) - 15), 16):
        width, height, _, _, _, bits, size, start = struct.unpack("<4B2H2I", data[at : at + 16])
        entries.append(((width or 256) * (height or 256), bits, -at, size, start))
    if not entries:
        return None
    _, _, at, size, start = max(entries)
    icon = data[start : start + size]
    if icon[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = struct.unpack(">II", icon[16:24].ljust(8, b"\0"))
    else:
        # a bitmap, and the mask of its transparency below it
        width, twice = struct.unpack("<ii", icon[4:12].ljust(8, b"\0"))
        height = abs(twice) // 2
    head = b"\0\0\1\0\1\0" + data[-at : 12 - at] + (22).to_bytes(4, "little")
    return head + icon, width, height


def icon_is_cut(data: bytes) -> bool:
    """Whether an ICO file ends before its directory, or the icon that would be read, does."""
    count = int.from_bytes(data[4:6], "little")
    if len(data) < 6 + 16 * count:
        return True
    best = largest_icon(data)
    return best is not None and len(best[0]) - 22 < int.from_bytes(best[0][14:18], "little")


def is_cut(kind: str, data: bytes) -> bool | None:
    """Whether a file ends before its structure says it does; None where that does not show."""
    if kind == "WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if kind in ("HEIC", "AVIF"):
        return any(end > len(data) for _, _, end in boxes(data))
    if kind == "JPEG2000":
        if b"\xff\xd9" in data[-64:]:  # the end of the codestream, and some padding
            return False
        return _codestream(data) >= 0 or any(end > len(data) for _, _, end in boxes(data))
    if kind == "ICO":
        return icon_is_cut(data)
    return None
