"""Windows bitmaps with palettes, in the one form that Pillow reads rightly whatever they hold.

It reads runs with odd numbers of pixels, runs that begin at odd places, and palettes that are gray
but not of as many colours as pixels have values, as other pixels than are there.
"""

from __future__ import annotations

import struct

import numpy as np

from lookalike.images.limits import ImageLimits
from lookalike.images.rejections import Rejected

_RAW, _RLE8, _RLE4 = 0, 1, 2
_HEADERS = (40, 52, 56, 64, 108, 124)
_ALLOWED = {_RAW: (1, 2, 4, 8), _RLE8: (8,), _RLE4: (4,)}


def plain_bitmap(data: bytes, limits: ImageLimits) -> bytes | None:
    """The same picture of a byte a pixel, without compression, with a palette of 256 colours.

    Returns:
        A file; it ends early where the given one does. None where there is nothing to mend: for
        other bitmaps, and for what makes no sense.

    Raises:
        Rejected: outside the limits, or of a compression that its depth does not go with.
    """
    if len(data) < 54:
        return None
    offset, header = struct.unpack("<II", data[10:18])
    if header == 12:
        width, height, _, bits = struct.unpack("<4H", data[18:26])
        compression = used = 0
    elif header in _HEADERS:
        width, height, _, bits, compression, _, _, _, used = struct.unpack(
            "<iiHHIIiiI", data[18:50]
        )
    else:
        return None
    if bits not in (1, 2, 4, 8) or compression not in _ALLOWED or width <= 0 or not height:
        return None
    if compression == _RAW and bits != 2 and used in (0, 1 << bits) and bits != 4:
        return None
    if bits not in _ALLOWED[compression]:
        raise Rejected("corrupt", f"BMP of {bits} bits with compression {compression}")
    limits.check_pixels(width, abs(height))
    stride = -(-width // 4) * 4
    need = 4 * stride * abs(height) + len(data)
    limits.check_memory(need, f"{width} x {abs(height)} pixels (BMP)")
    entry = 3 if header == 12 else 4
    colours = min(used or 1 << bits, 256)
    start = 14 + header
    if offset == start:  # as some programs say, though the palette is there
        offset += entry * colours
    if offset > start:
        colours = min(colours, (offset - start) // entry)
    palette = np.zeros((256, 4), np.uint8)
    given = np.frombuffer(data[start : start + entry * colours], np.uint8)
    given = given[: given.size // entry * entry].reshape(-1, entry)
    palette[: len(given), :3] = given[:, :3]
    if compression == _RAW:
        rows = _unpacked(data[offset:], width, abs(height), bits, stride)
    else:
        rows = _expanded(data[offset:], width, abs(height), stride, compression == _RLE4)
    head = struct.pack(
        "<2sIHHIIiiHHIIiiII",
        b"BM",
        1078 + len(rows),
        0,
        0,
        1078,
        40,
        width,
        height,
        1,
        8,
        _RAW,
        0,
        0,
        0,
        256,
        0,
    )
    return head + palette.tobytes() + rows


def _unpacked(packed: bytes, width: int, height: int, bits: int, stride: int) -> bytes:
    """Rows of a byte a pixel, as many as there are whole."""
    step = -(-width * bits // 32) * 4
    packed = packed[: step * height]
    there = len(packed) // step
    rows = np.zeros((there, stride), np.uint8)
    each = 8 // bits
    values = np.frombuffer(packed, np.uint8, there * step).reshape(there, step)
    for place in range(each):
        columns = rows[:, place:width:each]
        columns[:] = (values >> (8 - bits * (place + 1)) & ((1 << bits) - 1))[:, : columns.shape[1]]
    return rows.tobytes()


def _expanded(runs: bytes, width: int, height: int, stride: int, halves: bool) -> bytes:
    """Rows of a byte a pixel from runs; what none of them reaches has the first colour.

    Args:
        runs: the compressed pixels.
        width: of the picture.
        height: of the picture.
        stride: of the rows returned.
        halves: whether pixels have 4 bits.
    """
    rows = bytearray(stride * height)
    at = x = y = 0
    while y < height:
        if at + 2 > len(runs):
            missing = y < height - 1 or x < width
            return bytes(rows[: y * stride + min(x, width)] if missing else rows)
        count, value = runs[at], runs[at + 1]
        at += 2
        if count:
            pair = (value >> 4, value & 15) if halves else (value, value)
            pixels = (bytes(pair) * (count // 2 + 1))[:count]
        elif value == 0:
            x, y = 0, y + 1
            continue
        elif value == 1:
            break
        elif value == 2:
            x, y = (
                x + int.from_bytes(runs[at : at + 1], "big"),
                y + int.from_bytes(runs[at + 1 : at + 2], "big"),
            )
            at += 2
            continue
        else:
            size = (value + 1) // 2 if halves else value
            pixels = runs[at : at + size]
            at += size + size % 2
            if halves:
                pixels = bytes(half for byte in pixels for half in (byte >> 4, byte & 15))[:value]
        there = max(0, min(len(pixels), width - x))
        rows[y * stride + x : y * stride + x + there] = pixels[:there]
        x += len(pixels)
    return bytes(rows)
