"""Writes BMP and TGA files of any layout, from the values of their pixels."""

import struct

import numpy as np

RAW, RLE8, RLE4, BITFIELDS = 0, 1, 2, 3


def write_bmp(
    values, bits, palette=None, *, compression=RAW, header=40, masks=(), top_down=False, runs=None
):
    """A Windows or OS/2 bitmap.

    Args:
        values: (h, w), of `bits` bits each.
        bits: of a pixel.
        palette: (colours, 3).
        compression: its number.
        header: its size, which is its version.
        masks: of red, green, blue and alpha, for bit fields.
        top_down: whether the first row comes first.
        runs: for compressed ones, the lengths of runs, taken in turn; below 3, encoded ones.
    """
    height, width = values.shape
    rows = values if top_down else values[::-1]
    if compression in (RLE8, RLE4):
        pixels = _runs(rows, compression == RLE4, runs)
    else:
        pixels = _rows(rows, bits)
    entry = 3 if header == 12 else 4
    colours = (
        b""
        if palette is None
        else b"".join(
            bytes([blue, green, red]) + bytes(entry - 3) for red, green, blue in np.asarray(palette)
        )
    )
    number = 0 if palette is None else len(palette)
    if header == 12:
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        head = struct.pack(
            "<IiiHHIIiiII",
            header,
            width,
            -height if top_down else height,
            1,
            bits,
            compression,
            len(pixels),
            0,
            0,
            number,
            0,
        )
        fields = struct.pack(f"<{len(masks)}I", *masks)
        head += fields[:12] if header == 40 else fields.ljust(header - 40, b"\0")[: header - 40]
    start = 14 + len(head) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + head + colours + pixels


def _rows(rows, bits):
    if bits <= 8:
        ones = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        packed = np.packbits(ones.reshape(len(rows), -1).astype(np.uint8), axis=1)
    else:
        parts = rows.astype("<u4").view(np.uint8).reshape(*rows.shape, 4)
        packed = parts[..., : bits // 8].reshape(len(rows), -1)
    return np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4))).tobytes()


def _runs(rows, halves, lengths):
    out, turn = bytearray(), 0
    for row in rows:
        left = 0
        while left < len(row):
            length = min(lengths[turn % len(lengths)], len(row) - left)
            turn += 1
            part = [int(value) for value in row[left : left + length]]
            if length < 3:
                part = part[: 2 if halves else 1]
                value = part[0] << 4 | part[-1] if halves else part[0]
                out += bytes([len(part), value])
            else:
                odd = [*part, 0]
                packed = (
                    bytes(odd[i] << 4 | odd[i + 1] for i in range(0, length, 2))
                    if halves
                    else bytes(part)
                )
                out += bytes([0, length]) + packed + bytes(len(packed) % 2)
            left += len(part)
        out += b"\0\0"
    return bytes(out + b"\0\1")


def write_tga(
    values, kind, depth, *, origin=0x20, palette=None, map_depth=0, first=0, flags=0, name=b""
):
    """A Targa file.

    Args:
        values: (h, w), of `depth` bits each.
        kind: 1 to 3, or 9 to 11, which are compressed.
        depth: bits of a pixel.
        origin: 0x20, rows from the top; 0x10, from the right.
        palette: of colours as they are stored, of `map_depth` bits.
        map_depth: of a colour.
        first: the number of the first colour.
        flags: further bits of the descriptor.
        name: what stands before the pixels.
    """
    height, width = values.shape
    rows = values if origin & 0x20 else values[::-1]
    rows = rows[:, ::-1] if origin & 0x10 else rows
    size = -(-depth // 8)
    raw = rows.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :size]
    pixels = _packets(raw) if kind > 8 else raw.tobytes()
    colours = b""
    if palette is not None:
        stored = np.asarray(palette).astype("<u4").view(np.uint8).reshape(-1, 4)
        colours = stored[:, : -(-map_depth // 8)].tobytes()
    head = struct.pack(
        "<BBBHHBHHHHBB",
        len(name),
        palette is not None,
        kind,
        first,
        0 if palette is None else len(palette),
        map_depth,
        0,
        0,
        width,
        height,
        depth,
        origin | flags,
    )
    return head + name + colours + pixels


def _packets(pixels):
    """Runs where pixels repeat, otherwise packets of 1 to 50, which go on over the rows' ends."""
    out, at, turn = bytearray(), 0, 0
    while at < len(pixels):
        same = 1
        while at + same < len(pixels) and same < 128 and (pixels[at + same] == pixels[at]).all():
            same += 1
        if same > 1:
            out += bytes([0x80 | same - 1]) + pixels[at].tobytes()
            at += same
            continue
        turn += 1
        part = pixels[at : at + 7 * turn % 50 + 1]
        out += bytes([len(part) - 1]) + part.tobytes()
        at += len(part)
    return bytes(out)
