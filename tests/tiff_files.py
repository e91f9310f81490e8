"""Writes TIFF files of any layout, from the values of their samples."""

import io
import itertools
import lzma
import struct
import zlib

import numpy as np
from PIL import Image

NONE, LZW, JPEG, DEFLATE, PACKBITS, LZMA = 1, 5, 7, 8, 32773, 34925
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, LAB = 0, 1, 2, 3, 4, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def write_tiff(
    values,
    photometric,
    bits=8,
    *,
    order="<",
    big=False,
    planar=1,
    compression=NONE,
    predictor=1,
    fill_order=1,
    sample_format=UNSIGNED,
    tile=None,
    rows=8,
    extra=(),
    subsampling=None,
    colour_map=None,
    tags=(),
):
    """A file of one page.

    Args:
        values: (h, w, samples), each as it is stored in `bits` bits.
        photometric: the number of the colour space.
        bits: of every sample.
        order: "<" or ">", of the bytes.
        big: whether it is a BigTIFF.
        planar: 1, samples side by side; 2, a plane for each.
        compression: the number of the method.
        predictor: 1, none; 2, differences; 3, those of floats.
        fill_order: 2 turns the bits of every byte round.
        sample_format: the number.
        tile: (height, width); otherwise there are strips of so many `rows`.
        rows: of a strip.
        extra: what further samples mean.
        subsampling: (across, down) of colour in YCbCr.
        colour_map: (colours, 3).
        tags: (tag, type, values) besides.
    """
    height, width, samples = values.shape
    planes = [values] if planar == 1 else [values[..., i : i + 1] for i in range(samples)]
    step_down, step_across = tile or (rows, width)
    segments = []
    for plane in planes:
        tops, lefts = range(0, height, step_down), range(0, width, step_across)
        for top, left in itertools.product(tops, lefts):
            part = plane[top : top + step_down, left : left + step_across]
            if tile:
                part = np.pad(
                    part,
                    [(0, s - p) for s, p in zip(tile, part.shape[:2], strict=True)] + [(0, 0)],
                    mode="edge",
                )
            if compression == JPEG:
                segments.append(_jpeg(part, photometric))
                continue
            if subsampling and planar == 1:
                part = _units(part, *subsampling)
            raw = _packed(part, bits, order, sample_format, predictor)
            raw = _COMPRESSORS[compression](raw, -(-part.shape[1] * part.shape[2] * bits // 8))
            if fill_order == 2:
                raw = np.packbits(np.unpackbits(np.frombuffer(raw, np.uint8)), bitorder="little")
                raw = raw.tobytes()
            segments.append(raw)
    short, long = 3, 4
    entries = [
        (256, long, [width]),
        (257, long, [height]),
        (258, short, [bits] * samples),
        (259, short, [compression]),
        (262, short, [photometric]),
        (277, short, [samples]),
        (284, short, [planar]),
        (339, short, [sample_format] * samples),
        *tags,
    ]
    if tile:
        entries += [(322, short, [tile[1]]), (323, short, [tile[0]])]
    else:
        entries.append((278, long, [rows]))
    if predictor > 1:
        entries.append((317, short, [predictor]))
    if fill_order > 1:
        entries.append((266, short, [fill_order]))
    if extra:
        entries.append((338, short, list(extra)))
    if colour_map is not None:
        entries.append((320, short, np.asarray(colour_map).T.ravel().tolist()))
    if photometric == YCBCR:
        entries.append((530, short, list(subsampling or (1, 1))))
    return _file(entries, segments, bool(tile), order, big)


def _file(entries, segments, tiled, order, big):
    mark = b"II" if order == "<" else b"MM"
    body = bytearray(16 if big else 8)
    offsets = []
    for segment in segments:
        offsets.append(len(body))
        body += segment + bytes(len(segment) % 2)
    kind, sizes = (16 if big else 4), [len(segment) for segment in segments]
    entries += [(324 if tiled else 273, kind, offsets), (325 if tiled else 279, kind, sizes)]
    count, room, number = ("Q", 8, "Q") if big else ("H", 4, "I")
    directory = struct.pack(order + count, len(entries))
    for tag, kind, numbers in sorted(entries):
        code = {1: "B", 3: "H", 4: "I", 5: "I", 7: "B", 16: "Q"}[kind]
        field = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        n = len(numbers) // 2 if kind == 5 else len(numbers)
        if len(field) > room:
            at = len(body)
            body += field + bytes(len(field) % 2)
            field = struct.pack(order + number, at)
        directory += struct.pack(order + "HH" + number, tag, kind, n) + field.ljust(room, b"\0")
    start = len(body)
    if big:
        body[:16] = mark + struct.pack(order + "HHHQ", 43, 8, 0, start)
    else:
        body[:8] = mark + struct.pack(order + "HI", 42, start)
    return bytes(body + directory + bytes(room))


def _packed(part, bits, order, sample_format, predictor):
    """The bytes of rows of samples."""
    rows = part.reshape(part.shape[0], -1)
    if bits in (8, 16, 32, 64):
        code = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[sample_format]
        stored = part.astype(f"{order}{code}{bits // 8}")
        if predictor == 2:
            whole = part.astype(f"u{bits // 8}")
            whole[:, 1:] -= whole[:, :-1].copy()
            stored = whole.astype(f"{order}u{bits // 8}")
        if predictor == 3:  # the bytes of floats, the highest first, each kind together
            big = part.astype(f">f{bits // 8}").reshape(part.shape[0], -1)
            apart = big.view(np.uint8).reshape(*big.shape, -1).transpose(0, 2, 1)
            flat = apart.reshape(part.shape[0], -1).copy()
            step = part.shape[2]
            flat[:, step:] -= flat[:, :-step].copy()
            stored = flat
        return stored.tobytes()
    if bits == 24:
        wide = rows.astype(f"{order}u4").view(np.uint8).reshape(-1, 4)
        return (wide[:, :3] if order == "<" else wide[:, 1:]).tobytes()
    if predictor != 1:
        raise ValueError(bits)
    shifts = np.arange(bits - 1, -1, -1)
    ones = (rows[..., None].astype(np.int64) >> shifts) & 1
    return np.packbits(ones.reshape(rows.shape[0], -1).astype(np.uint8), axis=1).tobytes()


def _units(part, across, down):
    """YCbCr with less colour than light: units of `across` by `down` pixels' light, then Cb, Cr."""
    height, width, _ = part.shape
    part = np.pad(part, ((0, -height % down), (0, -width % across), (0, 0)), mode="edge")
    high, wide = part.shape[0] // down, part.shape[1] // across
    cells = part.reshape(high, down, wide, across, 3).transpose(0, 2, 1, 3, 4)
    light = cells[..., 0].reshape(high, wide, -1)
    colour = cells[..., 1:].mean(axis=(2, 3)).round()
    return np.concatenate([light, colour], axis=2).astype(part.dtype)


def _jpeg(part, photometric):
    out = io.BytesIO()
    if part.shape[2] == 1:
        Image.fromarray(part[..., 0].astype(np.uint8)).save(out, "JPEG", quality=95)
    elif photometric == YCBCR:
        image = Image.fromarray(part.astype(np.uint8), "YCbCr")
        image.save(out, "JPEG", quality=95, subsampling=0)
    elif part.shape[2] == 4:
        inverted = 255 - part.astype(np.uint8)  # Pillow inverts CMYK, as Adobe does outside TIFF
        Image.fromarray(inverted, "CMYK").save(out, "JPEG", quality=95)
    else:
        image = Image.fromarray(part.astype(np.uint8))
        image.save(out, "JPEG", quality=95, subsampling=0, keep_rgb=True)
    return out.getvalue()


def _lzw(raw, _):
    """LZW that never learns: a code for each byte, and a new beginning before codes grow."""
    codes = [256]
    for at in range(0, len(raw), 200):
        codes += [*raw[at : at + 200], 256]
    codes.append(257)
    ones = (np.array(codes)[:, None] >> np.arange(8, -1, -1)) & 1
    return np.packbits(ones.astype(np.uint8)).tobytes()


def _packbits(raw, row):
    parts = []
    for start in range(0, len(raw), row):
        line = raw[start : start + row]
        parts += [
            bytes([len(line[i : i + 128]) - 1]) + line[i : i + 128]
            for i in range(0, len(line), 128)
        ]
    return b"".join(parts)


_COMPRESSORS = {
    NONE: lambda raw, row: raw,
    DEFLATE: lambda raw, row: zlib.compress(raw),
    PACKBITS: _packbits,
    LZW: _lzw,
    LZMA: lambda raw, row: lzma.compress(raw),
}
