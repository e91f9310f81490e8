"""Embedded profiles are applied."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from lookalike.images import colour
from lookalike.images.preparing import decode, prepare, resize
from tests.colour_profiles import display_p3, gray_profile, icc
from tests.image_files import difference, encode, scene


def test_colour_profile_is_applied():
    red = Image.new("RGB", (8, 8), (250, 10, 10))
    assert decode(encode(red, "PNG", icc_profile=icc())).pixels[0, 0].tolist() == [10, 10, 250]


def test_broken_or_foreign_profile_is_ignored():
    red = Image.new("RGB", (8, 8), (250, 10, 10))
    for profile in (b"no profile", icc()[:200], icc().replace(b"RGB ", b"GRAY", 1)):
        got = decode(encode(red, "PNG", icc_profile=profile)).pixels
        assert got[0, 0].tolist() == [250, 10, 10]


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


def test_gray_profiles_are_applied():
    gray = Image.new("L", (8, 8), 128)
    got = decode(encode(gray, "PNG", icc_profile=gray_profile(1.0))).pixels
    assert abs(int(got[0, 0, 0]) - 188) <= 1  # half the light
    assert got.min() == got.max()


def test_gray_profiles_are_applied_beside_alpha():
    gray = Image.merge("LA", (Image.new("L", (8, 8), 128), Image.new("L", (8, 8), 255)))
    gray.putpixel((0, 0), (128, 0))
    got = decode(encode(gray, "PNG", icc_profile=gray_profile(1.0))).pixels
    assert got[0, 0].tolist() == [255] * 3
    assert abs(int(got[4, 4, 0]) - 188) <= 1


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
