"""Crops, turns and mirrors of HEIC and AVIF, in every order, as libheif does them."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lookalike.images.heif_properties import placement, properties
from lookalike.images.pixels import upright
from lookalike.images.preparing import decode, prepare, resize
from tests.heif_files import clap, cut_to, imir, irot, with_properties, with_sample_properties
from tests.image_files import difference, encode, golden, rejection, scene

FILES = {"AVIF": encode(scene(), "AVIF", quality=95, subsampling="4:4:4"), "HEIC": golden("plain")}


def changed(pixels, steps):
    """What the steps do to a picture, and the properties that say so."""
    found = []
    for step, value in steps:
        if step == "clap":
            left, top, right, bottom = value
            found.append(cut_to(pixels.shape[1::-1], *value))
            pixels = pixels[top:bottom, left:right]
        elif step == "irot":
            found.append(irot(value))
            pixels = np.rot90(pixels, value)
        else:
            found.append(imir(value))
            pixels = pixels[:, ::-1] if value else pixels[::-1]
    return pixels, found


ORDERS = [order for n in (1, 2, 3) for order in permutations(("clap", "irot", "imir"), n)]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("kind", FILES)
def test_every_order_of_crop_turn_and_mirror(kind, order):
    for turns, axis in ((1, 0), (2, 1), (3, 0), (1, 1), (3, 1)):
        values = {"clap": (6, 4, 36, 43), "irot": turns, "imir": axis}
        expected, found = changed(scene(), [(step, values[step]) for step in order])
        data = with_properties(FILES[kind], *found)
        got = decode(data)
        assert (got.height, got.width) == expected.shape[:2] == got.pixels.shape[:2]
        assert difference(got.pixels, expected) < 4
        small = prepare(data, sizes=[(9, 7)]).arrays[0]
        assert difference(small, resize(np.ascontiguousarray(expected), (9, 7))) < 4


@pytest.mark.parametrize(
    "aperture",
    [
        clap((61, 2), (71, 3), (1, 3), (-5, 4)),
        clap(31, 21, 0, 0),
        clap(30, 20, (1, 2), (1, 2)),
        clap(64, 48, 0, 0),
        clap(200, 20, 0, 0),
        clap(40, 30, 20, 15),
        clap(40, 30, -25, -15),
    ],
)
def test_crops_of_parts_of_pixels_and_beyond_the_edge_are_those_of_libheif(aperture):
    avif, heic = (decode(with_properties(data, aperture)).pixels for data in FILES.values())
    assert heic.shape == avif.shape
    assert difference(heic, avif) < 4


@pytest.mark.parametrize(
    "aperture",
    [
        clap(0, 0),
        clap((1, 3), 1),
        clap(-5, 20),
        clap((30, 0), 20),
        clap(30, 20, (1, 0)),
        clap(20, 20, 1000),
    ],
)
def test_a_crop_that_leaves_nothing_or_makes_no_sense_counts_for_nothing(aperture):
    got = decode(with_properties(FILES["AVIF"], aperture)).pixels
    assert got.shape == (48, 64, 3)
    # libheif takes the same for damage
    assert rejection(with_properties(FILES["HEIC"], aperture)).reason == "corrupt"


@pytest.mark.parametrize("kind", FILES)
def test_exif_orientation_counts_for_nothing_beside_the_container(kind):
    if kind == "HEIC":
        data = golden("exif_only")
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encode(scene(), "AVIF", quality=95, exif=exif)
        data = with_properties(data, instead_of=(b"irot", b"imir"))
    assert difference(decode(data).pixels, scene()) < 8
    expected, found = changed(scene(), [("irot", 1), ("clap", (0, 0, 20, 30))])
    assert difference(decode(with_properties(data, *found)).pixels, expected) < 8


@pytest.mark.parametrize("steps", [[("irot", 1)], [("imir", 1)], [("clap", (3, 2, 30, 40))]])
def test_alpha_goes_with_the_colours_that_are_turned(steps):
    rgba = np.dstack([scene(), np.where(np.mgrid[0:48, 0:64][1] < 20, 0, 255)]).astype(np.uint8)
    files = (golden("alpha"), encode(rgba, "AVIF", quality=95, subsampling="4:4:4"))
    for data in files:
        plain = decode(data).pixels
        assert (plain[:, :15] > 250).all() or (plain[:20] > 250).all()
        expected, found = changed(plain, steps)
        for wide in (False, True):
            turned = with_properties(data, *found, wide=wide)
            assert difference(decode(turned).pixels, expected) < 1


def test_the_first_frame_of_a_sequence_is_turned_as_its_track_says():
    frames = [Image.fromarray(scene()), Image.fromarray(np.ascontiguousarray(scene()[::-1]))]
    data = encode(
        frames[0],
        "AVIF",
        save_all=True,
        append_images=frames[1:],
        quality=95,
        subsampling="4:4:4",
    )
    assert difference(decode(data).pixels, scene()) < 4
    expected, found = changed(scene(), [("clap", (6, 4, 36, 43)), ("irot", 3)])
    turned = decode(with_sample_properties(data, *found))
    assert (turned.width, turned.height) == (39, 30)
    assert difference(turned.pixels, expected) < 4
    # what is said of the still picture beside the track is not said of its frames
    assert difference(decode(with_properties(data, irot(1))).pixels, scene()) < 4


STEP = st.one_of(
    st.tuples(st.just("irot"), st.integers(0, 3)),
    st.tuples(st.just("imir"), st.integers(0, 1)),
    st.tuples(st.just("clap"), st.tuples(*[st.floats(0, 1)] * 4)),
)


@given(st.integers(1, 9), st.integers(1, 9), st.lists(STEP, max_size=6))
def test_any_steps_come_to_one_crop_and_one_turn(height, width, steps):
    stored = expected = np.arange(height * width * 3).reshape(height, width, 3)
    found = []
    for step, value in steps:
        if step == "clap":
            high, wide = expected.shape[:2]
            left, top = int(value[0] * (wide - 1)), int(value[1] * (high - 1))
            right = left + 1 + int(value[2] * (wide - left - 1))
            value = (left, top, right, top + 1 + int(value[3] * (high - top - 1)))
        expected, more = changed(expected, [(step, value)])
        found += [(one[4:8], one[8:]) for one in more]
    placed = placement(found, width, height)
    left, top, right, bottom = placed.box or (0, 0, width, height)
    assert np.array_equal(upright(stored[top:bottom, left:right], placed.orientation), expected)


@settings(max_examples=300)
@given(
    st.sampled_from([with_properties(FILES["AVIF"], irot(1)), golden("alpha"), golden("turned")]),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=8),
    st.integers(0, 700),
)
def test_any_bytes_have_properties_or_none(data, changes, cut):
    broken = bytearray(data)
    for at, value in changes:
        broken[at % len(broken)] = value
    found = properties(bytes(broken[: len(broken) - cut]))
    placed = placement(found, 64, 48)
    assert 1 <= placed.orientation <= 8
    if placed.box:
        left, top, right, bottom = placed.box
        assert 0 <= left < right <= 64
        assert 0 <= top < bottom <= 48
