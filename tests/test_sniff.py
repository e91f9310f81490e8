"""What a file is, told by its bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.images.preparing import decode
from lookalike.images.rejections import NotAnImage
from lookalike.sources.sniff import (
    CAMERA_FORMATS,
    IMAGE_SUFFIXES,
    READ_FORMATS,
    claims_image,
    identify,
    sniff,
)
from tests.image_files import encode, rejection, scene


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"8BPS\0\1", "PSD"),
        (b"qoif\0\0", "QOI"),
        (b"P7\nWIDTH 2\n", "PNM"),
        (b"PF\n2 2\n", "PNM"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "SVG"),
        (b"<svg>", "SVG"),
        (b"\0\0\2\0\1\0\x10\x10\0\0" + bytes(12), "CUR"),
        (b"\n\5\1\x08" + bytes(20), "PCX"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"#define im_width 8\n", "XBM"),
        (b"II\xbc\x01", "JPEG XR"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
        (b"\xc5\xd0\xd3\xc6", "EPS"),
        (b"FLIF44", "FLIF"),
        (b"XPDS", "DPX"),
    ],
)
def test_known_formats_that_are_not_read_are_named(head, kind):
    assert sniff(head) == kind
    error = rejection(head, "no_name")
    assert error.reason == "unsupported_format"
    assert kind in error.detail


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypheix\0\0\0\0mif1heix", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", "HEIC"),
        (b"\0\0\0\x18ftyphevc\0\0\0\0msf1hevc", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypavis\0\0\0\0avismsf1", "AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG2000"),
        (b"P6\n# made by hand\n2 2 255\n", "PNM"),
        (b"Pf\n2 2\n", "PNM"),
        (b"\0\0\1\0\1\0\x10\x10\0\0" + bytes(12), "ICO"),
        (b"\x89PNG\r\r\n\x1a\r\n", "PNG"),  # sent as text
    ],
)
def test_formats_that_are_read_are_named(head, kind):
    assert sniff(head) == kind in READ_FORMATS


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (b"%PDF-1.6", "logo.ai", "Illustrator"),
        (b"%!PS-Adobe-3.0\n", "logo.eps", "EPS"),
        (b"\x1f\x8b\x08\0", "icon.svgz", "SVG"),
    ],
)
def test_drawings_that_only_their_name_tells_from_documents(data, name, kind):
    error = rejection(data, name)
    assert (error.reason, kind in error.detail) == ("unsupported_format", True)
    with pytest.raises(NotAnImage):
        decode(data, "file")


OTHERS = {
    b"%PDF-1.7": "a PDF document",
    b"\xef\xbb\xbf\n%PDF-1.4": "a PDF document",
    b"%!PS-Adobe-3.0\n": "a PostScript document",
    b"AT&TFORM\0\0\1\0DJVM": "a DjVu document",
    b"PK\3\4\x14\0": "a ZIP archive, or a document in one",
    b"\0\0\0\x18ftypmp42\0\0\0\0isommp42": "a film",
    b"\0\0\0\x14ftypqt  \0\0\2\0qt  ": "a film",
    b"\x1aE\xdf\xa3\x01": "a film",
    b"RIFF\0\1\0\0AVI LIST": "a film",
    b"ID3\4\0\0\0\0\0\x21APIC\0\0\0\0\0\0image/jpeg": "a sound",
    b"<!DOCTYPE html><html><img>": "a page of HTML",
}


@pytest.mark.parametrize("data", OTHERS)
def test_documents_films_and_sounds_are_no_images_and_named(data):
    with pytest.raises(NotAnImage, match=OTHERS[data]):
        decode(data, "file")
    for name in ("holiday.jpg", "scan.TIF"):
        error = rejection(data, name)
        assert (error.reason, error.detail) == ("not_an_image", f"the content is {OTHERS[data]}")


def tiff_of(make="", preview=True, order="<", photometric=1):
    """A TIFF's first directory as cameras write it: sub-pictures, and the marks of a preview."""
    name = make.encode().ljust(6, b"\0") + b"\0"
    tags = [(254, 4, 1, int(preview)), (262, 3, 1, photometric), (271, 2, len(name), 200)]
    tags += [(330, 4, 1, 300)] * preview
    entries = b""
    for tag, kind, count, value in tags:
        entries += struct.pack(order + "HHI", tag, kind, count)
        entries += struct.pack(order + ("H2x" if kind == 3 else "I"), value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return (head + entries).ljust(200, b"\0") + name


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"make": "NIKON"}, "NEF"),
        ({"make": "SONY"}, "ARW"),
        ({"make": "Phase"}, "RAW"),
        ({"make": "PENTAX", "preview": False, "photometric": 32803}, "PEF"),
        ({"make": "SONY", "preview": False}, "TIFF"),
        ({"preview": False}, "TIFF"),
    ],
)
def test_camera_raw_is_told_from_ordinary_tiff(options, kind, order):
    assert identify(tiff_of(order=order, **options), "x") == kind in READ_FORMATS | CAMERA_FORMATS


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "CR3"),
        (b"II*\0\x10\0\0\0CR\2\0", "CR2"),
        (b"FUJIFILMCCD-RAW 0201", "RAF"),
        (b"IIU\0\x18\0\0\0", "RW2"),
        (b"IIRO\x08\0\0\0", "ORF"),
    ],
)
def test_camera_formats_with_marks_of_their_own(head, kind):
    assert sniff(head) == kind in CAMERA_FORMATS


@given(st.binary(max_size=300), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_any_bytes_can_be_identified(tail, head):
    kind = identify(head + tail, "x.tga")
    assert kind is None or kind.isascii()


def test_tga_is_told_by_its_footer_or_by_name_and_header():
    data = encode(scene(), "TGA")
    assert data.endswith(b"TRUEVISION-XFILE.\0")
    assert identify(data, "no_name") == "TGA"
    assert identify(data[:-26], "x.tga") == "TGA"
    with pytest.raises(NotAnImage):
        decode(data[:-26], "x.dat")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"{}", "x.json"),
        (b"# words", "README"),
        (b"", ".gitkeep"),
        (b"", "x"),
        (b"%PDF-1.7", "a"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "film.mp4"),
        (b"BM is a short text", "notes.txt"),
        (b"P5 is a pedal", "x.md"),
        (b"<html><body><svg ></svg>", "p.html"),
    ],
)
def test_sidecars_are_no_images(data, name):
    with pytest.raises(NotAnImage):
        decode(data, name)


def test_suffixes_claim_images():
    assert {"jpg", "jpeg", "png", "heic", "avif", "raw", "tga"} <= IMAGE_SUFFIXES
    assert claims_image("s3://bucket/a.b/c.JPeG")
    assert claims_image("C:\\x\\y.png")
    assert not claims_image("dir.png/file")
    assert not claims_image(".png")
