"""Every layout of BMP and TGA is decoded to the pixels that were written, or rejected by name."""

import itertools

import numpy as np
import pytest
from PIL import Image

from lookalike.images.limits import ImageLimits
from lookalike.images.preparing import decode
from tests.bitmap_files import BITFIELDS, RAW, RLE4, RLE8, write_bmp, write_tga
from tests.image_files import rejection, scene

COLOURS = scene(19, 21).astype(int)
GRAY = np.asarray(Image.fromarray(COLOURS.astype(np.uint8)).convert("L")).astype(int)
RED, GREEN, BLUE = np.moveaxis(COLOURS, 2, 0)
RGB24 = RED << 16 | GREEN << 8 | BLUE
FIVE = COLOURS >> 3
RGB15 = FIVE[..., 0] << 10 | FIVE[..., 1] << 5 | FIVE[..., 2]
HEADERS = (40, 52, 56, 64, 108, 124)
RANDOM = np.random.default_rng(3).integers(0, 256, (256, 3))


def palettes(bits):
    """Palettes, some of which look as if there were none, or as if pixels had fewer bits."""
    levels = np.arange(2**bits)
    return {
        "colours": RANDOM[: 2**bits],
        "fewer": RANDOM[: max(1, 2**bits - 3)],
        "black and white": np.array([[0] * 3, [255] * 3]),
        "white and black": np.array([[255] * 3, [0] * 3]),
        "black": np.zeros((1, 3), int),
        "its numbers": np.stack([levels] * 3, axis=1),
        "grays": np.stack([levels * 255 // (2**bits - 1)] * 3, axis=1),
    }


@pytest.mark.parametrize("kind", palettes(1))
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_bmp_with_a_palette(bits, kind):
    palette = palettes(bits)[kind]
    values = (GRAY >> (8 - bits)) % len(palette)
    for header, top_down in itertools.product((12, *HEADERS), (False, True)):
        if header == 12 and (top_down or len(palette) != 2**bits):
            continue
        data = write_bmp(values, bits, palette, header=header, top_down=top_down)
        assert np.array_equal(decode(data).pixels, palette[values]), (header, top_down)


@pytest.mark.parametrize("kind", palettes(1))
@pytest.mark.parametrize("runs", [[21], [1], [2], [3], [5, 1, 4, 2, 7], [255]])
@pytest.mark.parametrize(("bits", "compression"), [(4, RLE4), (8, RLE8)])
def test_bmp_of_runs(bits, compression, runs, kind):
    palette = palettes(bits)[kind]
    values = (GRAY >> (8 - bits)) % len(palette)
    for header in HEADERS:
        data = write_bmp(values, bits, palette, compression=compression, runs=runs, header=header)
        assert np.array_equal(decode(data).pixels, palette[values]), header


def runs_of(bits, *parts):
    """A bitmap of 4 x 3 pixels made of these runs, with colours that are their numbers."""
    data = write_bmp(
        np.zeros((3, 4), int),
        bits,
        [[i, 2 * i, 3 * i] for i in range(16)],
        compression=RLE4 if bits == 4 else RLE8,
        runs=[255],
    )
    start = int.from_bytes(data[10:14], "little")
    return data[:start] + b"".join(parts)


@pytest.mark.parametrize("bits", [4, 8])
def test_bmp_runs_that_jump_and_overflow(bits):
    """A step of one to the right and one up; a run that is too long; nothing for the rest."""
    one, two, end = ((3, 0x11), (9, 0x22), (0, 1)) if bits == 4 else ((3, 1), (9, 2), (0, 1))
    data = runs_of(bits, bytes([1, one[1]]), b"\0\2\1\1", bytes(two), bytes(end))
    expected = np.array([[0, 0, 0, 0], [0, 0, 2, 2], [1, 0, 0, 0]])
    assert np.array_equal(decode(data).pixels[..., 0], expected)
    assert np.array_equal(decode(data).pixels[..., 2], 3 * expected)


def test_bmp_runs_that_end_early():
    data = runs_of(8, b"\4\7", b"\0\0", b"\4\5")
    assert rejection(data).reason == "truncated"
    got = decode(data, limits=ImageLimits(truncated="accept")).pixels[..., 0]
    assert np.array_equal(got[1:], [[5] * 4, [7] * 4])
    assert rejection(runs_of(8, b"\4\7", b"\0")).reason == "truncated"


def test_bmp_runs_of_another_depth_are_corrupt():
    data = bytearray(runs_of(8, b"\0\1"))
    data[28] = 4
    assert "BMP of 4 bits with compression 1" in rejection(bytes(data)).detail


def test_bmp_of_runs_is_held_to_the_limits():
    data = bytearray(runs_of(8, b"\0\1"))
    data[18:26] = (30000).to_bytes(4, "little") * 2
    assert rejection(bytes(data)).reason == "too_many_pixels"


BITS = {  # bits, masks of red, green, blue, alpha: whether it is read with the first header, others
    "555": (16, (0x7C00, 0x3E0, 0x1F, 0), True, True),
    "565": (16, (0xF800, 0x7E0, 0x1F, 0), True, True),
    "4444": (16, (0xF00, 0xF0, 0xF, 0xF000), False, False),
    "bgrx": (32, (0xFF0000, 0xFF00, 0xFF, 0), True, True),
    "xbgr": (32, (0xFF000000, 0xFF0000, 0xFF00, 0), True, True),
    "rgbx": (32, (0xFF, 0xFF00, 0xFF0000, 0), False, False),
    "bgra": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), True, True),
    "abgr": (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF), True, True),
    "rgba": (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), False, True),
    "10 bits": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0), False, False),
}


@pytest.mark.parametrize("kind", BITS)
def test_bmp_of_bit_fields(kind):
    bits, masks, first, others = BITS[kind]
    values, shown = np.zeros_like(RED), []
    for plane, mask in zip((RED, GREEN, BLUE), masks, strict=False):
        low = (mask & -mask).bit_length() - 1
        top = mask >> low
        part = np.round(plane * (top / 255)).astype(int)
        values |= part << low
        shown.append(part * 255 / top)
    shown = np.stack(shown, axis=2)
    for header, top_down, filled in itertools.product(HEADERS, (False, True), (False, True)):
        if header == 64:
            continue  # of OS/2, which has no masks
        filling = masks[3] if filled else 0  # else all alpha is 0, and counts for nothing
        data = write_bmp(
            values | filling,
            bits,
            compression=BITFIELDS,
            header=header,
            masks=masks,
            top_down=top_down,
        )
        read = first if header in (40, 52) else others
        if read:
            assert np.abs(decode(data).pixels - shown).max() <= 1, (header, top_down, filled)
        else:
            error = rejection(data)
            assert (error.reason, error.detail) == (
                "unsupported_format",
                "Unsupported BMP bitfields layout",
            )


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("header", [12, *HEADERS])
def test_bmp_of_plain_colours(header, top_down):
    if header == 12 and top_down:
        return
    for bits, values, shown in (
        (16, RGB15, FIVE * 255 / 31),
        (24, RGB24, COLOURS),
        (32, RGB24 | 0x80 << 24, COLOURS),
    ):
        data = write_bmp(values, bits, header=header, top_down=top_down, compression=RAW)
        assert np.abs(decode(data).pixels - shown).max() <= 1, bits


@pytest.mark.parametrize("origin", [0, 0x10, 0x20, 0x30])
@pytest.mark.parametrize("packed", [0, 8])
@pytest.mark.parametrize("name", [b"", b"a name"])
def test_tga(origin, packed, name):
    way = {"origin": origin, "name": name}
    grays = np.stack([GRAY] * 3, axis=2)
    for values, kind, depth, flags, shown in (
        (GRAY, 3, 8, 0, grays),
        (GRAY | 0xFF00, 3, 16, 8, grays),
        (GRAY, 3, 16, 0, grays),
        (RGB24, 2, 24, 0, COLOURS),
        (RGB24 | 0xFF << 24, 2, 32, 8, COLOURS),
        (RGB24, 2, 32, 0, COLOURS),
        (RGB15, 2, 16, 0, FIVE * 255 / 31),
        (RGB15 | 0x8000, 2, 16, 1, FIVE * 255 / 31),
    ):
        data = write_tga(values, kind + packed, depth, flags=flags, **way)
        assert np.abs(decode(data, "x.tga").pixels - shown).max() <= 1, (kind, depth, flags)
    numbers = GRAY >> 2
    fives = RANDOM[:64] >> 3
    for first, depth in itertools.product((0, 10), (15, 16, 24, 32)):
        if depth < 24:
            palette, shown = fives @ (1 << 10, 1 << 5, 1), fives * 255 / 31
        else:
            palette, shown = RANDOM[:64] @ (1 << 16, 1 << 8, 1), RANDOM[:64]
        data = write_tga(
            numbers + first, 1 + packed, 8, palette=palette, map_depth=depth, first=first, **way
        )
        if depth == 15:
            assert "colours of 15 bits" in rejection(data, "x.tga").detail
        else:
            assert np.abs(decode(data, "x.tga").pixels - shown[numbers]).max() <= 1, (first, depth)
    unused = write_tga(RGB24, 2 + packed, 24, palette=palette, map_depth=24, **way)
    assert np.array_equal(decode(unused, "x.tga").pixels, COLOURS)
    for values, kind, depth, flags in (
        (RGB15, 2, 15, 0),
        (numbers, 1, 16, 0),
        (RGB24, 2, 24, 0x40),
        (RGB24, 2, 24, 0x80),
    ):
        odd = write_tga(
            values, kind + packed, depth, flags=flags, palette=palette[:64], map_depth=24, **way
        )
        assert rejection(odd, "x.tga").reason == "unsupported_format"
