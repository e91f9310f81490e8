"""Large pictures are judged by what decoding them takes, not by their pixels."""

import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lookalike.images.heic_tiles import reduced_by_tiles
from lookalike.images.heif_grid import grid
from lookalike.images.jpeg_frames import jpeg_frame
from lookalike.images.limits import ImageLimits
from lookalike.images.memory import memory
from lookalike.images.openers import open_image, readable
from lookalike.images.preparing import decode, prepare
from tests.heif_files import as_grid, clap, imir, irot, nclx
from tests.image_files import VALID, difference, encode, golden, lossless_jpeg, rejection, scene


def large(kind, mode, megapixels, **options):
    """A file whose header says so many megapixels, 4 to 3, and what it would take to decode."""
    height = int((megapixels * 1e6 * 3 / 4) ** 0.5) // 16 * 16
    width = height * 4 // 3
    data = encode(Image.fromarray(scene()).convert(mode), kind, **options)
    if kind == "JPEG":
        at = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
        data = (
            data[: at + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 9 :]
        )
    else:
        header = data[12:16] + struct.pack(">II", width, height) + data[24:29]
        data = data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
    image = open_image(kind, readable(kind, data, ImageLimits()), data)
    return memory(image, kind, data, 224) / (1 << 20)


# What the decoder process was seen to take of real files of 200 and 300 megapixels, in MiB, beside
# the 75 that it has: these are the estimates' bounds.
@pytest.mark.parametrize(
    ("kind", "mode", "megapixels", "options", "low", "high"),
    [
        ("JPEG", "RGB", 200, {}, 15, 60),
        ("JPEG", "RGB", 300, {}, 20, 80),
        ("JPEG", "RGB", 200, {"subsampling": 0}, 15, 60),
        ("JPEG", "L", 200, {}, 4, 30),
        ("JPEG", "CMYK", 200, {}, 15, 60),
        ("JPEG", "RGB", 200, {"progressive": True, "subsampling": 2}, 580, 640),
        ("JPEG", "RGB", 300, {"progressive": True, "subsampling": 2}, 875, 960),
        ("JPEG", "RGB", 200, {"progressive": True, "subsampling": 0}, 1150, 1250),
        ("JPEG", "L", 200, {"progressive": True}, 380, 420),
        ("PNG", "RGB", 200, {}, 763, 800),
        ("PNG", "L", 200, {}, 190, 230),
        ("PNG", "RGB", 300, {}, 1144, 1200),
    ],
)
def test_memory_is_what_each_format_takes(kind, mode, megapixels, options, low, high):
    assert low <= large(kind, mode, megapixels, **options) <= high


def test_the_default_lets_large_photographs_through():
    """A JPEG of 180 megapixels: more than the limit once was, and than Pillow warns of."""
    tall = Image.new("L", (15600, 11600), 90)
    tall.paste(200, (0, 0, 7800, 11600))
    exif = Image.Exif()
    exif[274] = 6
    data = encode(tall, "JPEG", quality=30, exif=exif)
    got = prepare(data, sizes=[(32, 32)])
    assert (got.width, got.height) == (11600, 15600)
    assert np.abs(got.arrays[0][:14].astype(int) - 200).max() <= 1
    assert np.abs(got.arrays[0][18:].astype(int) - 90).max() <= 1


def test_what_does_not_fit_is_refused_with_both_numbers():
    header = encode(Image.new("RGB", (8, 8)), "BMP")
    lie = header[:18] + (20000).to_bytes(4, "little") + (15000).to_bytes(4, "little") + header[26:]
    error = rejection(lie, min_side=224)
    assert error.reason == "too_many_pixels"
    assert "20000 x 15000 pixels (BMP, RGB) would need 1146 MiB" in error.detail
    assert "1024 MiB allowed" in error.detail


@pytest.mark.parametrize("precision", [8, 12])
def test_lossless_jpeg_is_never_reduced_by_the_decoder(precision):
    values = np.asarray(Image.fromarray(scene(120, 160)).convert("L")).astype(int)
    data = lossless_jpeg(values << (precision - 8), precision)
    frame = jpeg_frame(data)
    assert (frame.process, frame.reducible) == (0xC3, False)
    if precision == 12:
        assert "12 bits a sample" in rejection(data).detail
        assert rejection(data).reason == "unsupported_format"
        return
    assert np.array_equal(decode(data).pixels[..., 0], values)
    for side in (8, 16, 32, 64):
        factor = 120 // (2 * side) or 1
        expected = np.asarray(Image.fromarray(values.astype(np.uint8)).reduce(factor))
        assert np.array_equal(decode(data, min_side=side).pixels[..., 0], expected), side


def test_lossless_jpeg_of_colours():
    colours = scene(90, 120)
    data = lossless_jpeg(colours)
    assert np.array_equal(decode(data).pixels, colours)
    small = decode(data, min_side=16).pixels
    assert np.array_equal(small, np.asarray(Image.fromarray(colours).reduce(2)))


@pytest.mark.parametrize("process", [0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF])
def test_jpeg_of_kinds_that_nobody_writes(process):
    error = rejection(lossless_jpeg(np.zeros((16, 16), int), process=process))
    assert error.reason == "unsupported_format"
    assert f"SOF{process - 0xC0}" in error.detail


@pytest.mark.parametrize("process", [0xC9, 0xCA])
def test_arithmetic_coding_is_not_reduced(process):
    data = VALID["jpeg"].replace(b"\xff\xc0", bytes([0xFF, process]), 1)
    assert not jpeg_frame(data).reducible


def test_headers_of_jpeg():
    frame = jpeg_frame(VALID["jpeg"])
    assert (frame.process, frame.precision, frame.in_first_scan) == (0xC0, 8, 3)
    assert frame.reducible
    assert frame.coefficients == 0
    progressive = jpeg_frame(VALID["jpeg progressive"])
    assert progressive.coefficients == 3  # of 4:2:0: 1.5 values of 2 bytes a pixel
    assert progressive.reducible
    for cut in range(0, 200, 7):
        jpeg_frame(VALID["jpeg"][:cut])  # no exception
    assert jpeg_frame(VALID["jpeg"][:20]) is None
    padded = VALID["jpeg"][:2] + b"\xff\xff\xff" + VALID["jpeg"][2:]
    assert jpeg_frame(padded) == frame


TILES = [golden("plain"), golden("turned")]  # coded as 64 x 64 pixels, and unlike


@pytest.mark.parametrize(
    "properties",
    [(), (irot(1),), (imir(0),), (irot(3), imir(1)), (clap(100, 80, 4, -6),), (nclx(12, 13),)],
)
def test_tiles_are_what_libheif_makes_of_the_whole(properties):
    data = as_grid(TILES, 2, 3, 180, 90, *properties)
    tight = ImageLimits(max_memory=300_000)
    whole, tiled = decode(data), decode(data, limits=tight)
    assert (tiled.width, tiled.height) == (whole.width, whole.height)
    assert difference(tiled.pixels, whole.pixels) < 0.5
    small = [
        prepare(data, sizes=[(20, 20)], limits=limits).arrays[0]
        for limits in (ImageLimits(), tight)
    ]
    assert difference(*small) < 2


def test_tiles_keep_their_places_and_the_picture_its_edge():
    data = as_grid(TILES, 2, 3, 150, 70)
    found = grid(data)
    assert (found.width, found.height, found.columns) == (150, 70, 3)
    assert (found.tile_width, found.tile_height, len(found.tiles)) == (64, 64, 6)
    tiles = [Image.fromarray(decode(as_grid([one], 1, 1, 64, 64)).pixels) for one in TILES]
    assert difference(*tiles) > 20
    for side, step in ((None, 1), (16, 2), (8, 4)):
        image, by = reduced_by_tiles(data, found, ImageLimits(), side)
        assert by == step
        expected = Image.new("RGB", (192, 128))
        for row, column in itertools.product(range(2), range(3)):
            tile = tiles[(3 * row + column) % 2]
            expected.paste(tile, (64 * column, 64 * row))
        expected = expected.crop((0, 0, 150, 70)).reduce(step)
        assert image.size == expected.size
        assert difference(image, expected) < 0.5


def test_a_grid_that_makes_no_sense_is_none():
    data = as_grid(TILES, 2, 3, 180, 90)
    assert grid(as_grid(TILES, 2, 3, 193, 90)) is None
    assert grid(golden("plain")) is None
    assert grid(golden("alpha")) is None
    for cut in range(0, len(data), 41):
        grid(data[:cut])  # no exception


def test_a_large_heic_of_one_piece_is_refused():
    error = rejection(golden("plain"), limits=ImageLimits(max_memory=40_000))
    assert error.reason == "too_many_pixels"
