import contextlib
import io
import json
import logging
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from lookalike import images, pixels
from lookalike.images import ImageLimits, NotAnImage, Rejected, decode, resize, thumbnail_jpeg
from lookalike.sniff import IMAGE_SUFFIXES, READ_FORMATS, claims_image, sniff


def scene(height=48, width=64):
    """Smooth, colourful and unlike any of its own mirror images or turns."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (255 * x / width, 255 * y / height, np.where((x < width / 2) & (y < 9), 255, 40))
    return np.stack(channels, axis=2).astype(np.uint8)


def encode(image, fmt, **options):
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour_type, rows, *extra):
    """A PNG from its raw rows (each with its filter byte), for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def tiff(tags, tail=b""):
    """A TIFF of one page from (tag, type, value) triples."""
    entries = b"".join(struct.pack("<HHII", t, kind, 1, v) for t, kind, v in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + tail


def bmp(width, height, tail=b""):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(tail), 0, 0, 54) + header + tail


def gif(width, height, frame=(1, 1)):
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\x00;"


def rejection(data, name="x.png", **options):
    with pytest.raises(Rejected) as caught:
        decode(data, name, **options)
    error = caught.value
    assert error.reason in images.REASONS
    assert len(error.detail) <= 500
    assert "\n" not in error.detail
    return error


def difference(a, b):
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).mean()


VALID = {
    "jpeg": encode(scene(), "JPEG", quality=95),
    "jpeg progressive": encode(scene(), "JPEG", quality=95, progressive=True),
    "png": encode(scene(), "PNG"),
    "gif": encode(scene(), "GIF"),
    "bmp": encode(scene(), "BMP"),
    "webp": encode(scene(), "WEBP", lossless=True),
    "webp lossy": encode(scene(), "WEBP", quality=95),
    "tiff": encode(scene(), "TIFF"),
    "tiff lzw": encode(scene(), "TIFF", compression="tiff_lzw"),
    "tiff deflate": encode(scene(), "TIFF", compression="tiff_adobe_deflate"),
    "tiff jpeg": encode(scene(), "TIFF", compression="jpeg"),
}


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


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "WEBP", "TIFF"])
def test_only_the_first_frame_counts(fmt):
    frames = [Image.new("RGB", (20, 10), c) for c in ("red", "lime", "blue")]
    data = encode(frames[0], fmt, save_all=True, append_images=frames[1:])
    assert difference(decode(data).pixels, np.full((10, 20, 3), (255, 0, 0))) < 2


def test_adobe_cmyk_jpeg_is_not_inverted():
    cmyk = Image.fromarray(scene()).convert("CMYK")
    got = decode(encode(cmyk, "JPEG", quality=95))
    assert difference(got.pixels, scene()) < 10


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


# --- gray of many depths

RAMP16 = np.linspace(0, 65535, 64 * 4).astype(np.uint16).reshape(4, 64)


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_gray_of_16_bits_is_scaled_not_clipped(fmt):
    got = decode(encode(Image.fromarray(RAMP16), fmt)).pixels
    assert np.array_equal(got[..., 0], np.round(RAMP16 / 257).astype(np.uint8))
    assert np.array_equal(got[..., 0], got[..., 2])


def test_big_endian_gray_tiff_of_16_bits():
    tags = [(256, 3, 64 << 16), (257, 3, 4 << 16), (258, 3, 16 << 16), (259, 3, 1 << 16),
            (262, 3, 1 << 16), (273, 4, 200), (277, 3, 1 << 16), (278, 3, 4 << 16),
            (279, 4, 512)]  # fmt: skip
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
    tags = [(256, 4, 4), (257, 4, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 200),
            (277, 3, 1), (278, 4, 2), (279, 4, 12)]  # fmt: skip
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


# --- transparency


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
        (1, 0, b"\x40", [0], [255, 255]),  # 0 is transparent, 1 is white
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


# --- orientation

# what a camera stores so that the tag's reader sees the scene upright
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_once(fmt, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](scene()))
    quality = {"quality": 95} if fmt in ("JPEG", "WEBP") else {}
    got = decode(encode(stored, fmt, exif=exif, **quality))
    assert (got.width, got.height) == (64, 48)
    assert difference(got.pixels, scene()) < 8


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_senseless_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert difference(decode(encode(scene(), "PNG", exif=exif)).pixels, scene()) == 0


def test_broken_exif_costs_neither_picture_nor_a_warning(recwarn):
    data = encode(scene(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03" * 9)
    assert decode(data).pixels.shape == (48, 64, 3)
    assert not recwarn.list


# --- colour profiles


def icc(kind="RGB"):
    """A display profile in which red and blue have changed places: no way to overlook it."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = data.index(b"rXYZ"), data.index(b"bXYZ")
    for at, name in zip(table, (b"bXYZ", b"rXYZ"), strict=True):
        data[at : at + 4] = name
    return bytes(data).replace(b"s\0R\0G\0B", b"t\0e\0s\0t").replace(b"sRGB", b"test")


def test_colour_profile_is_applied():
    red = Image.new("RGB", (8, 8), (250, 10, 10))
    assert decode(encode(red, "PNG", icc_profile=icc())).pixels[0, 0].tolist() == [10, 10, 250]


def test_broken_or_foreign_profile_is_ignored():
    red = Image.new("RGB", (8, 8), (250, 10, 10))
    for profile in (b"no profile", icc()[:200], icc().replace(b"RGB ", b"GRAY", 1)):
        got = decode(encode(red, "PNG", icc_profile=profile)).pixels
        assert got[0, 0].tolist() == [250, 10, 10]


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
    assert images.PREPROCESSING["version"] == 1


# --- what is refused, and why


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "x.jpg", "empty"),
        (b"just some words", "photo.jpg", "not_an_image"),
        (b"BMW and other makers of cars", "photo.bmp", "not_an_image"),
        (b"\0" * 100, "https://host/dir/photo.WEBP", "not_an_image"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avif", "x", "unsupported_format"),
        (b"\xff\xd8\xff\xe0", "x", "truncated"),
        (b"\x89PNG\r\n\x1a\n\0\0", "x", "truncated"),
        (VALID["png"].replace(b"IHDR", b"IHDX"), "x", "corrupt"),
        (bmp(0, 5, bytes(50)), "x", "corrupt"),
    ],
)
def test_reasons(data, name, reason):
    assert rejection(data, name).reason == reason


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"{}", "x.json"), (b"# words", "README"), (b"", ".gitkeep"), (b"", "x"), (b"%PDF-1.7", "a"),
     (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "film.mp4"), (b"BM is a short text", "notes.txt"),
     (b"P5 is a pedal", "x.md"), (b"<html><body><svg ></svg>", "p.html")],
)  # fmt: skip
def test_sidecars_are_no_images(data, name):
    with pytest.raises(NotAnImage):
        decode(data, name)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "CR3"),
        (b"II*\0\x10\0\0\0CR\2\0", "CR2"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"8BPS\0\1", "PSD"),
        (b"qoif\0\0", "QOI"),
        (b"P6\n# made by hand\n2 2 255\n", "PNM"),
        (b"Pf\n2 2\n", "PNM"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG"),
        (b"<svg>", "SVG"),
        (b"\0\0\1\0\1\0\x10\x10\0\0" + bytes(12), "ICO"),
        (b"\0\0\2\0\1\0\x10\x10\0\0" + bytes(12), "CUR"),
        (b"\n\5\1\x08" + bytes(20), "PCX"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"#define im_width 8\n", "XBM"),
    ],
)
def test_known_formats_that_are_not_read_are_named(head, kind):
    assert sniff(head) == kind
    error = rejection(head, "no_name")
    assert error.reason == "unsupported_format"
    assert kind in error.detail


def test_tga_needs_its_name():
    data = encode(scene(), "TGA")
    assert "TGA" in rejection(data, "x.tga").detail
    with pytest.raises(NotAnImage):
        decode(data, "x.dat")


def test_camera_raw_in_a_tiff_is_not_taken_for_its_preview():
    data = encode(scene(), "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    assert rejection(data).reason == "unsupported_format"


def test_suffixes_claim_images():
    assert {"jpg", "jpeg", "png", "heic", "avif", "raw", "tga"} <= IMAGE_SUFFIXES
    assert claims_image("s3://bucket/a.b/c.JPeG")
    assert claims_image("C:\\x\\y.png")
    assert not claims_image("dir.png/file")
    assert not claims_image(".png")


@pytest.mark.parametrize("kind", VALID)
def test_a_file_cut_in_half_is_truncated(kind):
    data = VALID[kind]
    assert rejection(data[: len(data) * 6 // 10], "x.jpg").reason == "truncated"


def test_bad_checksum_of_pixels_is_corrupt():
    data = bytearray(VALID["png"])
    data[-13] ^= 1  # the last byte of IDAT's checksum, before the 12 bytes of IEND
    error = rejection(bytes(data))
    assert (error.reason, error.detail) == ("corrupt", "bad checksum in an IDAT chunk")


def test_cause_is_kept_and_shown():
    error = rejection(VALID["jpeg"][:-300], "x.jpg")
    assert isinstance(error.__cause__, OSError)
    assert str(error).startswith("truncated: image file is truncated")
    assert rejection(b"words\n" * 500, "x.png").detail.count("\n") == 0


# --- limits


def test_bytes_limit():
    assert rejection(VALID["png"], limits=ImageLimits(max_bytes=100)).reason == "too_many_bytes"


@pytest.mark.parametrize("kind", VALID)
def test_pixel_limit_comes_before_decoding(kind, monkeypatch):
    def no_pixels(self):
        raise AssertionError("pixels were decoded")

    for opener in Image.OPEN.values():
        if isinstance(opener[0], type) and "load" in vars(opener[0]):
            monkeypatch.setattr(opener[0], "load", no_pixels)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", no_pixels)
    error = rejection(VALID[kind], limits=ImageLimits(max_pixels=64 * 48 - 1))
    assert error.reason == "too_many_pixels"
    assert "64 x 48 = 3072" in error.detail
    error = rejection(VALID[kind], limits=ImageLimits(max_memory=3000))
    assert error.reason == "too_many_pixels"
    assert "MiB" in error.detail


ENORMOUS = {
    "png": png(65536, 65536, 8, 2, bytes(1000)),
    "bmp": bmp(3_000_000, 2_000_000, bytes(1000)),
    "gif": gif(65535, 65535),
    "gif frame": gif(1, 1, (65535, 65535)),
    "tiff": tiff([(256, 4, 60000), (257, 4, 60000), (258, 3, 8), (259, 3, 1), (262, 3, 1),
                  (273, 4, 300), (278, 4, 60000), (279, 4, 100)], bytes(999)),
    "tiff tile": tiff([(256, 4, 10), (257, 4, 10), (258, 3, 8), (259, 3, 8), (262, 3, 1),
                       (322, 4, 65536), (323, 4, 65536), (324, 4, 300), (325, 4, 9)], bytes(999)),
    "tall": png(1, 1 << 26, 8, 6, bytes(1000)),
    "past Pillow's warning": png(1 << 14, 1 << 14, 1, 0, bytes(1000)),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENORMOUS)
def test_enormous_headers_are_refused_without_a_warning(kind, recwarn):
    assert rejection(ENORMOUS[kind]).reason == "too_many_pixels"
    assert not recwarn.list


@pytest.mark.parametrize("kind", VALID)
def test_pillow_warnings_of_large_pictures_do_not_leak(kind, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert decode(VALID[kind]).pixels.shape == (48, 64, 3)
    assert not recwarn.list


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_peak_memory_of_large_pictures_is_bounded(tmp_path):
    """Decoding 60 megapixels of RGBA costs little over what Pillow must hold (4 bytes a pixel)."""
    side = 7746
    rows = zlib.compress(bytes((side * 4 + 1) * side), 1)
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    code = (
        "import resource, sys; from lookalike.images import decode\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "data = open(sys.argv[1], 'rb').read(); before = peak()\n"
        "assert decode(data, min_side=224).pixels.shape == (456, 456, 3)\n"
        "print((peak() - before) // 1024)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4 * side * side / 2**20 + 120


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 24))),
        b"".join(chunk(b"zTXt", b"k%d\0\0" % i + zlib.compress(bytes(1 << 20))) for i in range(70)),
    ],
    ids=["iCCP", "zTXt"],
)
def test_metadata_bombs_are_bounded(extra):
    assert rejection(png(1, 1, 8, 0, b"\0\0", extra)).reason == "corrupt"
    assert PngImagePlugin.MAX_TEXT_CHUNK <= 1 << 20  # what bounds them


# --- robustness


@pytest.mark.parametrize(
    "error",
    [SyntaxError("odd"), OSError(), ValueError("x"), struct.error("short"), OverflowError("big"),
     IndexError("i"), KeyError("k"), ZeroDivisionError("z"), TypeError("t"), AttributeError("a"),
     RuntimeError("r"), zlib.error("z"), RecursionError("r"), AssertionError("a")],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_whatever_a_decoder_raises_becomes_a_rejection(error, monkeypatch):
    def broken(self):
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    got = rejection(VALID["png"])
    assert got.reason == "corrupt"
    assert got.detail
    assert got.__cause__ is error


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError(), "out_of_memory"), (EOFError("no more"), "truncated"),
     (Image.DecompressionBombError("too big"), "too_many_pixels")],
)  # fmt: skip
def test_errors_with_a_reason_of_their_own(error, reason, monkeypatch):
    def broken(self):
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    assert rejection(VALID["png"]).reason == reason


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(VALID)),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=6),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4),
    st.integers(0, 4000),
    st.sampled_from([None, 8]),
)
def test_mutated_files_never_raise_anything_else(kind, changes, in_header, cut, min_side):
    data = bytearray(VALID[kind])
    for at, value in changes + in_header:
        data[at % len(data)] = value
    changed = bytes(data[: max(0, len(data) - max(0, cut - 2000))])
    refused = got = None
    try:
        got = decode(changed, "x", min_side=min_side)
    except (Rejected, NotAnImage) as error:
        refused = error
    if isinstance(refused, Rejected):
        assert refused.reason in images.REASONS
        assert refused.detail
    if got is not None:
        assert got.pixels.dtype == np.uint8
        assert got.pixels.shape[2] == 3
        assert got.width * got.height >= got.pixels.shape[0] * got.pixels.shape[1] > 0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["x.jpg", "x.tga", "x.txt", ""]))
def test_any_bytes_with_any_signature(tail, name):
    for head in (b"", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"MM\0*", b"RIFF\xff\0\0\0WEBP", b"BM"):
        try:
            decode(head + tail, name)
        except (Rejected, NotAnImage) as refused:
            words = str(refused)
        else:
            words = "decoded"
        assert words


def test_damaged_tiff_prints_nothing():
    code = (
        "import sys; from lookalike.images import decode, Rejected\n"
        "data = sys.stdin.buffer.read()\n"
        "for cut in range(20, len(data), 97):\n"
        "    try: decode(data[:cut], 'x.tif')\n"
        "    except Rejected: pass\n"
    )
    for kind in ("tiff lzw", "tiff jpeg", "tiff deflate"):
        data = VALID[kind]
        done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_threads_leave_the_warning_filters_as_they_were(caplog):
    before = list(warnings.filters)
    data = [VALID[kind][: -40 * (i % 2) or None] for i, kind in enumerate(sorted(VALID))]

    def work():
        for one in data * 5:
            with contextlib.suppress(Rejected):
                decode(one, "x")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
