"""Gray of many depths and transparency become 8-bit RGB over white."""

import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from lookalike.images.preparing import decode
from tests.image_files import chunk, difference, encode, png, tiff

RAMP16 = np.linspace(0, 65535, 64 * 4).astype(np.uint16).reshape(4, 64)


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_gray_of_16_bits_is_scaled_not_clipped(fmt):
    got = decode(encode(Image.fromarray(RAMP16), fmt)).pixels
    assert np.array_equal(got[..., 0], np.round(RAMP16 / 257).astype(np.uint8))
    assert np.array_equal(got[..., 0], got[..., 2])


def test_big_endian_gray_tiff_of_16_bits():
    tags = [
        (256, 3, 64 << 16),
        (257, 3, 4 << 16),
        (258, 3, 16 << 16),
        (259, 3, 1 << 16),
        (262, 3, 1 << 16),
        (273, 4, 200),
        (277, 3, 1 << 16),
        (278, 3, 4 << 16),
        (279, 4, 512),
    ]
    entries = b"".join(struct.pack(">HHII", t, kind, 1, v) for t, kind, v in tags)
    head = b"MM\0*\0\0\0\x08" + struct.pack(">H", len(tags)) + entries + bytes(4)
    got = decode(head.ljust(200, b"\0") + RAMP16.astype(">u2").tobytes()).pixels
    assert np.array_equal(got[..., 1], np.round(RAMP16 / 257).astype(np.uint8))


def test_white_is_zero_gray_tiff_of_16_bits():
    data = encode(Image.fromarray(RAMP16), "TIFF", tiffinfo={262: 0})
    stored = decode(data).pixels[..., 0]
    assert np.array_equal(stored, 255 - np.round(RAMP16 / 257).astype(np.uint8))


def test_gray_tiff_of_12_bits_reaches_white():
    packed = b"\xff\xff\xff" * 2 + b"\0\0\0" * 2  # rows of four 12-bit values
    tags = [
        (256, 4, 4),
        (257, 4, 2),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 200),
        (277, 3, 1),
        (278, 4, 2),
        (279, 4, 12),
    ]
    got = decode(tiff(tags).ljust(200, b"\0") + packed).pixels
    assert (got[0] == 255).all()
    assert (got[1] == 0).all()


def test_float_tiff_in_unit_range_and_beyond():
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(4, 64)
    eight = np.round(ramp * 255).astype(np.uint8)
    assert np.array_equal(decode(encode(Image.fromarray(ramp), "TIFF")).pixels[..., 0], eight)
    wide = ramp * 5000 - 1000
    got = decode(encode(Image.fromarray(wide), "TIFF")).pixels[..., 0]
    assert difference(got, eight) < 0.1
    wide[0, :4] = np.nan, np.inf, -3e38, 3e38
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = decode(encode(Image.fromarray(wide), "TIFF")).pixels[0, :4, 0]
    assert got.tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize("value", [0.0, 7.5, -3.0, np.nan, np.inf, 3e38])
def test_flat_float_tiff_is_no_error(value):
    data = encode(Image.fromarray(np.full((4, 4), value, np.float32)), "TIFF")
    assert decode(data).pixels.shape == (4, 4, 3)


@pytest.mark.parametrize(("top", "scale"), [(200, 1), (60000, 257)])
def test_integer_tiff_keeps_8_and_16_bit_ranges(top, scale):
    values = np.linspace(0, top, 64, dtype=np.int32).reshape(8, 8)
    got = decode(encode(Image.fromarray(values), "TIFF")).pixels[..., 0]
    assert difference(got, values / scale) < 1


def test_png_rgb_of_16_bits():
    rows = b"\0" + struct.pack(">6H", 0x8000, 0x1000, 0xFFFF, 0, 0x20FF, 0xABCD)
    got = decode(png(2, 1, 16, 2, rows)).pixels
    assert got.tolist() == [[[0x80, 0x10, 0xFF], [0, 0x20, 0xAB]]]


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_over_white(fmt):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0], rgba[:2, :, 3], rgba[2:, :, 3] = 200, 0, 128
    options = {"lossless": True, "exact": True} if fmt == "WEBP" else {}
    got = decode(encode(rgba, fmt, **options)).pixels
    assert (got[:2] == 255).all()
    assert np.abs(got[2].astype(int) - (227, 127, 127)).max() <= 1


def test_gray_alpha_and_palette_alpha():
    la = Image.merge("LA", (Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 51)))
    assert (decode(encode(la, "PNG")).pixels == 204).all()
    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 0])
    palette.putdata([0, 1, 2])
    got = decode(encode(palette, "PNG", transparency=bytes([255, 0, 128]))).pixels
    assert got.tolist() == [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]


@pytest.mark.parametrize(
    ("depth", "colour_type", "row", "key", "expected"),
    [
        (1, 0, b"\x40", [0], [0, 255]),  # 0 is transparent, 1 is white: seen on black
        (1, 0, b"\x40", [1], [0, 255]),
        (2, 0, b"\x60", [2], [85, 255]),
        (4, 0, b"\x5a", [10], [85, 255]),
        (8, 0, b"\x55\xaa", [0xAA], [85, 255]),
        (16, 0, b"\x55\x55\xaa\xbb", [0xAABB], [85, 255]),
        (8, 2, b"\x55\x55\x55\1\2\3", [1, 2, 3], [85, 255]),
        (16, 2, b"\x55" * 6 + b"\1\0\2\0\3\0", [0x100, 0x200, 0x300], [85, 255]),
    ],
)
def test_png_transparent_colour(depth, colour_type, row, key, expected):
    trns = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    got = decode(png(2, 1, depth, colour_type, b"\0" + row, trns)).pixels
    assert got[0].tolist() == [[v] * 3 for v in expected]


def test_gif_transparency_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putdata([0, 1])
    got = decode(encode(image, "GIF", transparency=0)).pixels
    assert got[0].tolist() == [[255, 255, 255], [200, 0, 0]]
