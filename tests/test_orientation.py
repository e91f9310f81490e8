"""Pictures come out upright, turned once."""

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lookalike.images.preparing import decode, prepare, resize
from tests.image_files import chunk, difference, encode, golden, scene

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
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_once(fmt, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](scene()))
    quality = {"quality": 95} if fmt in ("JPEG", "WEBP", "AVIF") else {}
    data = encode(stored, fmt, exif=exif, **quality)
    got = decode(data)
    assert (got.width, got.height) == (64, 48)
    assert difference(got.pixels, scene()) < 8
    ready = prepare(data, sizes=[(12, 16), (9, 5)])
    assert (ready.width, ready.height) == (64, 48)
    assert difference(ready.arrays[0], resize(scene(), (12, 16))) < 8
    assert difference(ready.arrays[1], resize(scene(), (9, 5))) < 8


def test_the_container_of_heic_turns_its_picture_and_exif_does_not():
    for name in ("turned", "exif_only"):
        got = decode(golden(name))
        assert (got.width, got.height) == (64, 48)
        assert difference(got.pixels, scene()) < 4


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="3"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [None, 6])
def test_xmp_orientation_counts_for_nothing_as_in_libvips_and_imagemagick(fmt, orientation):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    options = {"exif": exif}
    if fmt == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options["pnginfo"] = info
    elif fmt == "TIFF":
        options = {"tiffinfo": {700: XMP} | ({274: orientation} if orientation else {})}
    else:
        options |= {"xmp": XMP, "quality": 95}
    stored = np.ascontiguousarray(STORED[orientation or 1](scene()))
    data = encode(stored, fmt, **options)
    assert b"tiff:Orientation" in data
    assert difference(decode(data).pixels, scene()) < 8


def test_xmp_behind_the_pixels_of_a_png_counts_for_nothing():
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    data = encode(scene(), "PNG")
    assert np.array_equal(decode(data[:-12] + text + data[-12:]).pixels, scene())


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_senseless_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert difference(decode(encode(scene(), "PNG", exif=exif)).pixels, scene()) == 0


def test_broken_exif_costs_neither_picture_nor_a_warning(recwarn):
    data = encode(scene(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03" * 9)
    assert decode(data).pixels.shape == (48, 64, 3)
    assert not recwarn.list
