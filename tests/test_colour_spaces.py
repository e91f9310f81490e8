"""Colour that files describe by numbers ends as sRGB, in the order of the PNG specification."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from lookalike.images.colour_spaces import ColourSpace, numbered, profile
from lookalike.images.preparing import decode, prepare, resize
from tests.colour_profiles import display_p3
from tests.heif_files import nclx, with_properties
from tests.image_files import chunk, difference, encode, golden, png, scene

P3, BT2020 = 12, 9
SRGB, LINEAR, PQ, HLG = 13, 8, 16, 18
P3_PLACES = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
SRGB_PLACES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)


def cicp(primaries, transfer, matrix=0, full=1):
    return chunk(b"cICP", bytes((primaries, transfer, matrix, full)))


def gama(value):
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def chrm(*places):
    return chunk(b"cHRM", struct.pack(">8I", *(round(place * 100_000) for place in places)))


def with_chunks(image, *chunks, **options):
    """A PNG with these chunks before its first other one."""
    data = encode(image, "PNG", **options)
    return data[:33] + b"".join(chunks) + data[33:]


def by_profile(image):
    """What Display P3's own profile makes of a picture."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(display_p3()))
    return ImageCms.profileToProfile(
        Image.fromarray(image), source, ImageCms.createProfile("sRGB"), 1
    )


FILES = {
    "cICP": with_chunks(scene(), cicp(P3, SRGB)),
    "cHRM": with_chunks(scene(), chrm(*P3_PLACES)),
    "cHRM and gAMA": with_chunks(scene(), gama(0.45455), chrm(*P3_PLACES)),
    "AVIF": with_properties(
        encode(scene(), "AVIF", quality=100, subsampling="4:4:4"),
        nclx(P3, SRGB),
        instead_of=(b"colr",),
    ),
    "HEIC": with_properties(golden("plain"), nclx(P3, SRGB), instead_of=(b"colr",)),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_numbers_of_display_p3_are_worth_its_profile(kind):
    expected = np.asarray(by_profile(scene()))
    assert difference(expected, scene()) > 4
    close = 4 if kind == "HEIC" else 1
    assert difference(decode(FILES[kind]).pixels, expected) < close
    small = prepare(FILES[kind], sizes=[(12, 16)]).arrays[0]
    assert difference(small, by_profile(resize(scene(), (12, 16)))) < close


@pytest.mark.parametrize(
    "chunks",
    [
        [gama(0.45455)],
        [gama(0.45)],
        [gama(0.45455), chrm(*SRGB_PLACES)],
        [chrm(*SRGB_PLACES)],
        [chrm(0.31269, 0.32899, 0.63999, 0.33001, 0.3, 0.6, 0.15, 0.05999)],
        [cicp(1, SRGB)],
        [cicp(1, 1)],
        [cicp(2, 2)],
        [chunk(b"sRGB", b"\0"), gama(1), chrm(*P3_PLACES)],
    ],
)
def test_what_means_srgb_changes_nothing(chunks):
    for image in (scene(), Image.fromarray(scene()).convert("L")):
        assert np.array_equal(
            decode(with_chunks(image, *chunks)).pixels, decode(encode(image, "PNG")).pixels
        )


@pytest.mark.parametrize(
    "chunks",
    [
        [gama(0)],
        [gama(0.00001)],
        [gama(20_000)],
        [chrm(*[0] * 8)],
        [chrm(*[0.3] * 8)],
        [chrm(*[40_000] * 8)],
        [chrm(0.3127, 0, *P3_PLACES[2:])],
        [chrm(0.9, 0.05, *P3_PLACES[2:])],
        [cicp(P3, SRGB, matrix=9)],
        [cicp(77, 99)],
        [chunk(b"cICP", b"\x09")],
    ],
)
def test_numbers_without_sense_count_for_nothing(chunks):
    assert np.array_equal(decode(with_chunks(scene(), *chunks)).pixels, scene())


def test_what_stands_behind_the_pixels_counts_for_nothing():
    data = encode(scene(), "PNG")
    assert np.array_equal(decode(data[:-12] + gama(1) + data[-12:]).pixels, scene())


def test_the_order_of_the_specification():
    expected = np.asarray(by_profile(scene()))
    swapped = display_p3().replace(b"rXYZ", b"temp").replace(b"bXYZ", b"rXYZ")
    swapped = swapped.replace(b"temp", b"bXYZ")
    lower = (chunk(b"sRGB", b"\0"), gama(1))
    first = with_chunks(scene(), *lower, cicp(P3, SRGB), icc_profile=swapped)
    second = with_chunks(scene(), *lower, icc_profile=display_p3())
    for data in (first, second):
        assert difference(decode(data).pixels, expected) < 1
    plain = with_chunks(scene(), cicp(1, SRGB), icc_profile=swapped)
    assert np.array_equal(decode(plain).pixels, scene())
    avif = encode(scene(), "AVIF", quality=100, subsampling="4:4:4", icc_profile=display_p3())
    both = avif.replace(b"nclx\0\2\0\2", b"nclx\0\x09\0\x10")
    assert both != avif
    assert difference(decode(both).pixels, expected) < 1


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "RGBA", "1", "I;16"])
def test_gamma_is_applied_to_every_kind_of_pixel(mode):
    gray = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 257)
    elif mode == "1":
        image = Image.fromarray((gray > 127) * np.uint8(255)).convert("1")
        gray = np.where(gray > 127, 255, 0)
    else:
        image = Image.fromarray(gray).convert(mode)
    light = gray / 255
    expected = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    got = decode(with_chunks(image, gama(1.0))).pixels
    assert difference(got, np.stack([expected] * 3, axis=2)) < 0.6
    assert np.array_equal(got[..., 0], got[..., 2])


def gray_png(value, *chunks):
    return png(1, 1, 8, 2, b"\0" + bytes([value] * 3), *chunks)


@pytest.mark.parametrize(
    ("value", "space", "light"),
    [
        (128, cicp(1, LINEAR), 128 / 255),
        (128, cicp(1, 4), (128 / 255) ** 2.2),
        (128, cicp(1, 5), (128 / 255) ** 2.8),
        (235, cicp(1, SRGB, full=0), 1),
        (16, cicp(1, SRGB, full=0), 0),
        (126, cicp(1, LINEAR, full=0), 110 / 219),
        # BT.2408: white on paper is 58 % of PQ, 75 % of HLG, and 26 cd/m2 is 38 % and 38 %
        (148, cicp(BT2020, PQ), 1 - 0.5 / np.e),
        (191, cicp(BT2020, HLG), 1 - 0.5 / np.e),
        (97, cicp(BT2020, PQ), 26 / 203),
        (255, cicp(BT2020, PQ), 1),
        (255, cicp(BT2020, HLG), 1),
        (255, cicp(2, HLG), 1),
        (128, cicp(1, 9), 10 ** (2 * (128 / 255 - 1))),
        (128, cicp(1, 10), 10 ** (2.5 * (128 / 255 - 1))),
        (200, cicp(1, 7), ((200 / 255 + 0.1115) / 1.1115) ** (1 / 0.45)),
        (200, cicp(1, 17), (200 / 255) ** 2.6 * 52.37 / 48),
    ],
)
def test_curves(value, space, light):
    got = decode(gray_png(value, space)).pixels[0, 0].astype(int)
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055 if light > 0.0031308 else light * 12.92)
    assert np.abs(got - expected).max() <= 2


def test_an_hdr_picture_looks_like_the_ordinary_one():
    """What is no brighter than half of white is the same; what is brighter is so in both."""
    light = (scene() / 255) ** 2.2 * 0.5
    ordinary = np.round(255 * (1.055 * light.clip(0.0031308) ** (1 / 2.4) - 0.055)).clip(0, 255)
    scaled = (light * 203 / 10_000) ** 0.1593017578125
    pq = ((0.8359375 + 18.8515625 * scaled) / (1 + 18.6875 * scaled)) ** 78.84375
    image = np.round(255 * pq).astype(np.uint8)
    assert difference(image, ordinary) > 15
    assert difference(decode(with_chunks(image, cicp(1, PQ))).pixels, ordinary) < 2.5
    avif = encode(image, "AVIF", quality=100, subsampling="4:4:4")
    avif = with_properties(avif, nclx(1, PQ), instead_of=(b"colr",))
    assert difference(decode(avif).pixels, ordinary) < 4


def test_a_profile_of_srgb_from_numbers_is_the_known_one():
    mine = ImageCms.ImageCmsProfile(io.BytesIO(profile(ColourSpace()))).profile
    known = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).profile
    for name in ("red_colorant", "green_colorant", "blue_colorant"):
        ours, theirs = getattr(mine, name)[0], getattr(known, name)[0]
        assert np.allclose(ours, theirs, atol=3e-4), name


@given(st.integers(0, 255), st.integers(0, 255), st.booleans())
def test_all_numbers_make_profiles_that_can_be_applied(primaries, transfer, narrow):
    space = numbered(primaries, transfer, narrow)
    if space is None:
        return
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile(space)))
    made = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    white = made.apply(Image.new("RGB", (1, 1), "white")).getpixel((0, 0))
    assert min(white) >= 250
    assert max(white) - min(white) <= 1
