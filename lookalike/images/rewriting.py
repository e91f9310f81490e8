"""Files rewritten for the decoders: another form of the same pixels, or less beside them.

What is not needed of a file must not decide whether its picture is read, and some forms are read
wrongly, or not at all, where others of the same pixels are read rightly.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from lookalike.images.bitmaps import plain_bitmap
from lookalike.images.containers import largest_icon, png_chunks
from lookalike.images.heif_properties import decoder_turns, without_turns
from lookalike.images.limits import ImageLimits
from lookalike.images.memory import check_size
from lookalike.images.rejections import Rejected
from lookalike.sources.tiff_layout import classic, is_big_endian_bigtiff

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"))
_EXIF_AS_TEXT = b"Raw profile type exif\0"
_PILLOWS_LIMIT = 1 << 20  # of what it inflates
_LARGEST_PROFILE = 4 << 20


def rewritten(kind: str, data: bytes, limits: ImageLimits) -> bytes:
    """The bytes that the decoder of a format is given; mostly the file itself.

    Raises:
        Rejected: outside the limits, or damaged.
    """
    if kind == "PNG":
        return _needed_of_png(data)
    if kind == "BMP":
        return plain_bitmap(data, limits) or data
    if kind == "TIFF" and is_big_endian_bigtiff(data):
        return classic(data)
    if kind == "HEIC" and not decoder_turns(data):
        return without_turns(data)
    if kind == "ICO":
        icon = largest_icon(data)
        if icon is None:
            raise Rejected("corrupt", "ICO without an entry")
        check_size(*icon[1:], kind, limits)
        return icon[0]
    return data


def _needed_of_png(data: bytes) -> bytes:
    """A PNG without texts, times, histograms and the like; itself where it has none."""
    if not data.startswith(_PNG):
        return data
    kept, start = [memoryview(data)[:8]], 8
    exif = profile = False
    for kind, at, end in png_chunks(data):
        keep = kind in _PNG_PIXELS
        if kind == b"eXIf":
            keep = _sum_holds(data, at, end)
        elif (
            kind in (b"tEXt", b"zTXt", b"iTXt") and not exif and data.startswith(_EXIF_AS_TEXT, at)
        ):
            keep = exif = _sum_holds(data, at, end) and (
                end - at < _PILLOWS_LIMIT
                and (kind == b"tEXt" or _inflated(data, at, end, _PILLOWS_LIMIT) is not None)
            )
        elif kind == b"iCCP" and not profile:
            profile = True
            keep = _inflated(data, at, end, _PILLOWS_LIMIT) is not None and _sum_holds(
                data, at, end
            )
        if keep or end > len(data):
            kept.append(memoryview(data)[at - 8 : end + 4])
        start = end + 4
        if kind == b"IEND":
            break
    kept.append(memoryview(data)[start:])
    return data if sum(map(len, kept)) == len(data) else b"".join(kept)


def large_profile_of_png(data: bytes) -> bytes | None:
    """A PNG's ICC profile, where it is larger than Pillow reads one, of 4 MiB at most."""
    for kind, at, end in _before_pixels(data):
        if kind == b"iCCP":
            if (
                not _sum_holds(data, at, end)
                or _inflated(data, at, end, _PILLOWS_LIMIT) is not None
            ):
                return None
            return _inflated(data, at, end, _LARGEST_PROFILE)
    return None


def _before_pixels(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    for chunk in png_chunks(data):
        if chunk[0] == b"IDAT":
            return
        yield chunk


def _sum_holds(data: bytes, at: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[at - 4 : end]).to_bytes(4, "big") == data[end : end + 4]


def _inflated(data: bytes, at: int, end: int, limit: int) -> bytes | None:
    """What stands compressed behind a name in a chunk; None where it is damaged or exceeds."""
    name = data.find(b"\0", at, min(end, at + 80))
    if name < 0 or data[name + 1 : name + 2] != b"\0":
        return None
    machine = zlib.decompressobj()
    try:
        content = machine.decompress(memoryview(data)[name + 2 : end], limit)
    except zlib.error:
        return None
    return content if machine.eof else None
