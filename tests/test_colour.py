"""Embedded profiles are applied."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from lookalike.pictures import colour
from lookalike.pictures.images import decode, prepare, resize
from tests.image_files import (
    difference,
    encode,
    scene,
)


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


def number(value):
    """A fixed-point number of a profile."""
    return struct.pack(">i", round(value * 65536))


def display_p3():
    """The profile that phones write: P3's primaries at D50, and sRGB's curve."""
    curve = b"".join(map(number, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
    white, red = (0.95045, 1, 1.08905), (0.51512, 0.24120, -0.00105)
    green, blue = (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)
    tags = [(b"desc", b"desc\0\0\0\0\0\0\0\x03P3\0" + bytes(78))]
    for name, place in ((b"wtpt", white), (b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue)):
        tags.append((name, b"XYZ \0\0\0\0" + b"".join(map(number, place))))
    tags += [(name, b"para\0\0\0\0\0\3\0\0" + curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = bytearray(128)
    head[8:24], head[36:40] = b"\2\x40\0\0mntrRGB XYZ ", b"acsp"
    head[68:80] = number(0.9642) + number(1) + number(0.8249)
    head[:4] = struct.pack(">I", len(head) + len(table) + len(body))
    return bytes(head) + table + body


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_display_p3_rendering_comes_out_as_the_srgb_one(fmt):
    profile = ImageCms.ImageCmsProfile(io.BytesIO(display_p3()))
    muted = Image.fromarray((40 + scene() * 0.6).astype(np.uint8))  # within both gamuts
    wide = ImageCms.profileToProfile(muted, ImageCms.createProfile("sRGB"), profile, 1)
    assert difference(wide, muted) > 4
    options = {"quality": 95, "subsampling": "4:4:4"} if fmt in ("JPEG", "AVIF") else {}
    options |= {"lossless": True} if fmt == "WEBP" else {}
    data = encode(wide, fmt, icc_profile=display_p3(), **options)
    assert difference(decode(data).pixels, muted) < 1.5
    small = prepare(data, sizes=[(12, 16)]).arrays[0]
    assert difference(small, resize(np.asarray(muted), (12, 16))) < 1.5


def test_a_profile_of_srgb_by_any_name_is_not_applied():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    renamed = srgb.replace(b"s\0R\0G\0B", b"a\0n\0y\0 ").replace(b"sRGB", b"any ")
    assert b"sRGB" not in renamed
    for profile in (srgb, renamed):
        assert np.array_equal(decode(encode(scene(), "PNG", icc_profile=profile)).pixels, scene())


def gray_profile(gamma):
    """A profile of gray whose curve is a power."""
    curve = b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(gamma * 256)) + bytes(2)
    white = b"XYZ \0\0\0\0" + number(0.9642) + number(1) + number(0.8249)
    desc = b"desc\0\0\0\0\0\0\0\2g\0" + bytes(79)
    tags, at = ((b"desc", desc), (b"wtpt", white), (b"kTRC", curve)), 168
    table, body = struct.pack(">I", 3), b""
    for name, data in tags:
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = bytearray(128)
    head[8:24], head[36:40] = b"\2\x40\0\0mntrGRAYXYZ ", b"acsp"
    head[68:80] = number(0.9642) + number(1) + number(0.8249)
    head[:4] = struct.pack(">I", len(head) + len(table) + len(body))
    return bytes(head) + table + body


def test_gray_profiles_are_applied():
    gray = Image.new("L", (8, 8), 128)
    got = decode(encode(gray, "PNG", icc_profile=gray_profile(1.0))).pixels
    assert abs(int(got[0, 0, 0]) - 188) <= 1  # half the light
    assert got.min() == got.max()


def test_cmyk_without_a_profile_and_ycck():
    cmyk = Image.fromarray(scene()).convert("CMYK")
    data = encode(cmyk, "JPEG", quality=95)
    assert b"Adobe" in data
    assert difference(decode(data).pixels, scene()) < 10
    # the same numbers, declared to be luma and chroma, of inks, with black
    at = data.index(b"Adobe") + 11
    ycck = data[:at] + b"\2" + data[at + 1 :]
    stored = 255 - np.asarray(Image.open(io.BytesIO(data))).astype(int)
    luma, blue, red = stored[..., 0], stored[..., 1] - 128, stored[..., 2] - 128
    inks = (luma + 1.402 * red, luma - 0.34414 * blue - 0.71414 * red, luma + 1.772 * blue)
    expected = (255 - np.stack(inks, axis=2).clip(0, 255)) * stored[..., 3:] / 255
    assert difference(decode(ycck).pixels, expected) < 3


def test_transforms_are_made_once(monkeypatch):
    built = []
    build = ImageCms.buildTransform
    monkeypatch.setattr(ImageCms, "buildTransform", lambda *a: built.append(1) or build(*a))
    colour._transform.cache_clear()
    data = encode(scene(), "PNG", icc_profile=display_p3())
    for _ in range(5):
        prepare(data, sizes=[(8, 8)])
    assert len(built) == 1
