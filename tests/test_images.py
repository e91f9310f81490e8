"""What decode, prepare, resize and thumbnail_jpeg promise."""

import json
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from lookalike.images import pixels
from lookalike.images import preparing as images
from lookalike.images.preparing import decode, prepare, resize, thumbnail_jpeg
from lookalike.sources.sniff import READ_FORMATS, sniff
from tests.image_files import VALID, difference, encode, golden, png, scene, tiff


@pytest.mark.parametrize("kind", VALID)
def test_every_format_gives_the_picture(kind):
    got = decode(VALID[kind], "any.name")
    assert got.format == kind.split()[0].upper() in READ_FORMATS
    assert (got.width, got.height) == (64, 48)
    assert got.pixels.shape == (48, 64, 3)
    assert got.pixels.dtype == np.uint8
    assert got.pixels.flags.c_contiguous
    assert difference(got.pixels, scene()) < 8


@pytest.mark.parametrize("name", ["x.jpg", "x.txt", "", "dir.png/no_extension", "s3://b/k.gif"])
def test_content_decides_not_the_name(name):
    assert decode(VALID["png"], name).format == "PNG"


def test_mpo_gives_its_first_picture():
    first, second = Image.fromarray(scene()), Image.fromarray(255 - scene())
    got = decode(encode(first, "MPO", save_all=True, append_images=[second], quality=95))
    assert got.format == "JPEG"
    assert difference(got.pixels, scene()) < 8


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_only_the_first_frame_counts(fmt):
    frames = [Image.new("RGB", (20, 10), c) for c in ("red", "lime", "blue")]
    data = encode(frames[0], fmt, save_all=True, append_images=frames[1:])
    assert difference(decode(data).pixels, np.full((10, 20, 3), (255, 0, 0))) < 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", scene()),
        ("ten_bit", scene()),
        ("two", 255 - scene()),
        ("alpha", np.concatenate([np.full((24, 64, 3), 255, np.uint8), scene()[24:]])),
    ],
)
def test_heic_of_8_and_10_bits_with_alpha_and_of_two_pictures(name, expected):
    got = decode(golden(name))
    assert got.format == "HEIC"
    assert difference(got.pixels, expected) < 4


def test_the_largest_icon_of_most_colours_counts():
    whole = encode(scene(64, 64), "ICO", sizes=[(16, 16), (64, 64), (32, 32)], bitmap_format="bmp")
    got = decode(whole)
    assert (got.width, got.height) == (64, 64)
    assert np.array_equal(got.pixels, scene(64, 64))
    few, many = (encode(scene(32, 32) // k, "ICO", sizes=[(32, 32)]) for k in (2, 1))
    entries = b"".join(
        one[6:12] + struct.pack("<HI", bits, len(one) - 22) + struct.pack("<I", at)
        for one, bits, at in ((few, 8, 38), (many, 32, 38 + len(few) - 22))
    )
    assert np.array_equal(
        decode(b"\0\0\1\0\2\0" + entries + few[22:] + many[22:]).pixels, scene(32, 32)
    )


@pytest.mark.parametrize(
    "data",
    [
        b"P1\n# made by hand\n2 1\n0 1\n",
        b"P2 2 1 255 255 0\n",
        b"P3 2 1 9 9 9 9 0 0 0\n",
        b"P4 2 1\n\x40",
        b"P5 2 1 255\n\xff\0",
        b"P5 2 1 65535\n\xff\xff\0\0",
        b"P5 2 1 7\n\7\0",
        b"P6 2 1 255\n\xff\xff\xff\0\0\0",
        b"P6 2 1 65535\n" + b"\xff" * 6 + bytes(6),
        b"Pf 2 1 -1.0\n" + struct.pack("<2f", 1, 0),
    ],
)
def test_portable_maps_of_every_kind(data):
    got = decode(data, "x.pnm")
    assert got.format == "PNM"
    assert got.pixels.tolist() == [[[255] * 3, [0] * 3]]


def test_dark_portable_graymaps_of_16_bits_stay_dark():
    assert decode(b"P5 2 1 65535\n\0\xff\0\0").pixels.max() == 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGBA", "LAB", "YCbCr"])
def test_tiff_modes(mode):
    image = Image.fromarray(scene())
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    else:
        image = image.convert(mode)
    options = {"compression": "jpeg"} if mode == "YCbCr" else {}
    expected = scene() if mode in ("CMYK", "RGBA", "LAB", "YCbCr") else image.convert("RGB")
    assert difference(decode(encode(image, "TIFF", **options)).pixels, expected) < 8


# --- prepare


def photograph(height, width, seed=0):
    """Detail at every scale, in colour: noise whose power falls with its frequency."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    y, x = np.fft.fftfreq(height)[:, None, None], np.fft.fftfreq(width)[None, :, None]
    falling = np.fft.fft2(noise, axes=(0, 1)) / (np.hypot(y, x) + 1 / max(height, width))
    picture = np.fft.ifft2(falling, axes=(0, 1)).real
    return np.clip(128 + 48 * picture / picture.std(), 0, 255).astype(np.uint8)


def cosine(a, b):
    """Of the deviations from the mean: stricter than of the pixels themselves."""
    a, b = (np.asarray(one, np.float64) - np.mean(one) for one in (a, b))
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


@pytest.mark.parametrize("kind", VALID)
def test_prepare_gives_arrays_of_the_sizes(kind):
    got = prepare(VALID[kind], "any.name", sizes=[(8, 12), (5, 5), (48, 64)])
    assert (got.format, got.width, got.height) == (kind.split()[0].upper(), 64, 48)
    assert [array.shape for array in got.arrays] == [(8, 12, 3), (5, 5, 3), (48, 64, 3)]
    for array in got.arrays:
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous
    whole = decode(VALID[kind]).pixels
    for array in got.arrays:
        assert difference(array, resize(whole, array.shape[:2])) < 3


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"]


@pytest.mark.parametrize("size", [(40, 40), (64, 20), (300, 400), (350, 500)])
@pytest.mark.parametrize("mode", MODES)
def test_prepare_agrees_with_decode_and_resize(mode, size):
    image = Image.fromarray(photograph(300, 400))
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(photograph(300, 400, seed=1)[..., 0]))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "F":
        image = image.convert("L").convert("F")
    else:
        image = image.convert(mode)
    data = encode(image, "TIFF" if mode in ("CMYK", "F") else "PNG")
    ready = prepare(data, sizes=[size]).arrays[0]
    asked = resize(decode(data).pixels, size)
    assert difference(ready, asked) < 2
    assert cosine(ready, asked) > (0.99 if mode == "1" else 0.9985)  # nothing but dots, in black
    reduced = decode(data, min_side=max(size)).pixels
    assert difference(ready, resize(reduced, size)) < 4


@pytest.mark.parametrize("side", [32, 80])
@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
def test_scaled_decoding_is_as_good_as_full(fmt, side):
    pixels = photograph(800, 1200)
    data = encode(pixels, fmt, **({"quality": 92} if fmt == "JPEG" else {"compress_level": 1}))
    quick = prepare(data, sizes=[(side, side)]).arrays[0]
    full = resize(decode(data).pixels, (side, side))
    assert decode(data, min_side=side).pixels.shape[0] <= 800 // 4
    assert cosine(quick, full) > 0.998
    assert difference(quick, full) < 2


def test_several_sizes_are_those_of_each_alone():
    data = encode(photograph(900, 1200), "JPEG")
    sizes = [(128, 128), (64, 96), (32, 32)]
    together = prepare(data, sizes=sizes).arrays
    for size, array in zip(sizes, together, strict=True):
        assert difference(array, prepare(data, sizes=[size]).arrays[0]) < 2


def test_16_bit_colour_is_that_of_8_bits():
    pixels = photograph(60, 80)
    eight = decode(encode(pixels, "PNG")).pixels
    wide = (pixels.astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    alpha = np.concatenate([wide, np.full((60, 80, 1), 65535, ">u2")], axis=2)
    with_alpha = b"".join(b"\0" + row.tobytes() for row in alpha)
    little = wide.astype("<u2").tobytes()
    tags = [
        (256, 4, 80),
        (257, 4, 60),
        (259, 3, 1),
        (262, 3, 2),
        (273, 4, 200),
        (277, 3, 3),
        (278, 4, 60),
        (279, 4, len(little)),
    ]
    directory = tiff([*tags, (258, 3, 180)]).replace(
        struct.pack("<HHII", 258, 3, 1, 180), struct.pack("<HHII", 258, 3, 3, 180)
    )
    page = directory.ljust(180, b"\0") + struct.pack("<3H", 16, 16, 16).ljust(20, b"\0") + little
    for data in (png(80, 60, 16, 2, rows), png(80, 60, 16, 6, with_alpha), page):
        assert np.abs(decode(data).pixels.astype(int) - eight).max() <= 1


def test_gray_of_16_bits_in_jpeg_2000():
    ramp = np.linspace(0, 65535, 64 * 8).astype(np.uint16).reshape(8, 64)
    got = decode(encode(Image.fromarray(ramp), "JPEG2000")).pixels
    assert np.abs(got[..., 0] - ramp / 257).max() <= 1


# --- reducing and resizing


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
@pytest.mark.parametrize("min_side", [16, 37, 100, 400])
def test_reduction_keeps_twice_the_model_side(kind, min_side):
    data = encode(scene(301, 420), kind)
    full, small = decode(data), decode(data, min_side=min_side)
    assert (small.width, small.height) == (420, 301)
    assert min(small.pixels.shape[:2]) >= min(301, 2 * min_side)
    assert min(small.pixels.shape[:2]) < 301 or min_side > 75
    size = (min_side, min_side)
    assert difference(resize(full.pixels, size), resize(small.pixels, size)) < 6


def test_blocks_join_without_a_seam(monkeypatch):
    data = encode(scene(200, 300), "PNG")
    whole, reduced = decode(data), decode(data, min_side=30)
    monkeypatch.setattr(pixels, "_BLOCK", 7)
    assert np.array_equal(decode(data).pixels, whole.pixels)
    assert np.array_equal(decode(data, min_side=30).pixels, reduced.pixels)


def test_alpha_is_composited_before_reducing():
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[::2, :, 3] = 255  # black and fully transparent lines: half black over white
    assert np.abs(decode(encode(rgba, "PNG"), min_side=8).pixels.astype(int) - 128).max() <= 1


def test_resize_is_antialiased_and_takes_height_first():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, (7, 5))
    assert small.shape == (7, 5, 3)
    assert small.dtype == np.uint8
    assert np.abs(small.astype(int) - 128).max() < 12
    assert resize(stripes[:1, :1], (8, 8)).shape == (8, 8, 3)
    assert np.array_equal(resize(stripes, (64, 64)), stripes)


def test_thumbnail_is_a_small_jpeg_of_the_same_shape():
    data = thumbnail_jpeg(scene(300, 400), 120)
    assert sniff(data) == "JPEG"
    assert decode(data).pixels.shape == (90, 120, 3)
    assert decode(thumbnail_jpeg(scene(10, 20), 120)).pixels.shape == (10, 20, 3)


def test_preprocessing_is_plain_json():
    assert json.loads(json.dumps(images.PREPROCESSING)) == images.PREPROCESSING
    assert images.PREPROCESSING["version"] == 2
