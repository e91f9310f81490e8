"""Camera raw is developed where rawpy is installed, and refused with the remedy where it is not."""

import struct
import sys

import numpy as np
import pytest

from lookalike.images.limits import ImageLimits
from lookalike.images.preparing import decode, prepare, resize
from tests.image_files import difference, dng, encode, rejection, scene


def light(pixels):
    """As LibRaw shows it: the transfer curve of BT.709 in place of sRGB's."""
    linear = (pixels / 255.0) ** 2.2
    return 255 * np.where(linear < 0.018, 4.5 * linear, 1.099 * linear**0.45 - 0.099)


def test_a_raw_file_is_developed():
    pytest.importorskip("rawpy")
    got = decode(dng(scene(240, 320)), "x.dng")
    assert (got.format, got.width, got.height) == ("DNG", 320, 240)
    assert got.pixels.shape == (240, 320, 3)
    assert difference(got.pixels[8:-8, 8:-8], light(scene(240, 320))[8:-8, 8:-8]) < 8


def test_large_raw_files_are_developed_at_half_the_size():
    pytest.importorskip("rawpy")
    data = dng(scene(240, 320))
    assert decode(data, min_side=60).pixels.shape == (120, 160, 3)
    assert decode(data, min_side=61).pixels.shape == (240, 320, 3)
    got = prepare(data, sizes=[(30, 30)])
    assert (got.width, got.height) == (320, 240)
    assert difference(got.arrays[0], resize(decode(data).pixels, (30, 30))) < 4


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_raw_files_come_upright(orientation):
    pytest.importorskip("rawpy")
    turns = {3: 2, 6: 1, 8: 3}[orientation]
    stored = np.ascontiguousarray(np.rot90(scene(240, 320), turns))
    got = decode(dng(stored, orientation))
    assert (got.width, got.height) == (320, 240)
    assert difference(got.pixels[8:-8, 8:-8], light(scene(240, 320))[8:-8, 8:-8]) < 8


def test_a_sensor_without_colours_gives_gray():
    pytest.importorskip("rawpy")
    data = dng(scene(240, 320)).replace(
        struct.pack("<HHIH", 262, 3, 1, 32803), struct.pack("<HHIH", 262, 3, 1, 34892)
    )
    got = decode(data, "x.dng").pixels
    assert got.shape == (240, 320, 3)
    assert (got[..., 0] == got[..., 2]).all()


def test_damaged_raw_files_are_refused_in_silence(capfd):
    pytest.importorskip("rawpy")
    data = dng(scene(240, 320))
    for cut in (300, 1000, len(data) // 2, len(data) - 10):
        assert rejection(data[:cut], "x.dng").reason == "truncated"
    preview = encode(scene(), "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    assert rejection(preview).reason == "unsupported_format"
    assert rejection(b"FUJIFILMCCD-RAW 0201" + bytes(500), "x.raf").reason != "not_an_image"
    assert capfd.readouterr() == ("", "")


def test_limits_hold_for_raw_files():
    pytest.importorskip("rawpy")
    data = dng(scene(240, 320))
    assert rejection(data, limits=ImageLimits(max_pixels=240 * 320 - 1)).reason == "too_many_pixels"
    assert "MiB" in rejection(data, limits=ImageLimits(max_memory=1 << 20)).detail


def test_without_rawpy_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    monkeypatch.delitem(sys.modules, "lookalike.images.camera_raw", raising=False)
    error = rejection(dng(scene()), "x.dng")
    assert error.reason == "unsupported_format"
    assert "pip install 'lookalike[raw]'" in error.detail
    assert "DNG" in error.detail
