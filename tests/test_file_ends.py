"""What is missing at a file's end, or stands before its beginning, without being missed."""

import numpy as np
import pytest
from PIL import Image

from lookalike.images.preparing import decode, prepare
from lookalike.images.rejections import NotAnImage
from tests.image_files import VALID, encode, rejection, scene

LARGE = scene(480, 640)
WHOLE = {
    "jpeg": encode(LARGE, "JPEG", quality=85),
    "jpeg 4:2:0 of odd size": encode(LARGE[:331, :447], "JPEG", quality=70),
    "jpeg gray": encode(Image.fromarray(LARGE).convert("L"), "JPEG", quality=90),
    "jpeg cmyk": encode(Image.fromarray(LARGE).convert("CMYK"), "JPEG", quality=90),
    "jpeg progressive": encode(LARGE, "JPEG", quality=85, progressive=True),
    "jpeg restart": encode(LARGE, "JPEG", quality=85, restart_marker_blocks=4),
    "jpeg optimized": encode(LARGE, "JPEG", quality=95, optimize=True),
    "small jpeg": VALID["jpeg"],
}


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_jpeg_without_its_end_mark_is_whole(kind, missing):
    whole, cut = WHOLE[kind], WHOLE[kind][:-missing]
    assert np.array_equal(decode(cut).pixels, decode(whole).pixels)
    ours, theirs = prepare(cut, sizes=[(32, 48)]), prepare(whole, sizes=[(32, 48)])
    assert np.array_equal(ours.arrays[0], theirs.arrays[0])
    assert (ours.width, ours.height) == (theirs.width, theirs.height)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_jpeg_that_lacks_more_is_truncated(kind):
    data = WHOLE[kind]
    for missing in (4, 5, 8, 20, 100, len(data) // 3, len(data) // 2):
        assert rejection(data[:-missing]).reason == "truncated"


def test_a_progressive_jpeg_that_ends_between_two_scans_is_truncated():
    data = WHOLE["jpeg progressive"]
    scans = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    tables = [i for i in range(scans[0], len(data)) if data[i : i + 2] == b"\xff\xc4"]
    for at in (*scans[1:], *tables):
        for more in (0, 1, 2, 3, 7):
            assert rejection(data[: at + more]).reason == "truncated"


@pytest.mark.parametrize(
    ("kind", "missing"),
    [("png", 12), ("png", 16), ("gif", 1), ("gif", 2), ("webp", 1), ("tga", 26)],
)
def test_other_formats_without_what_tells_only_the_end(kind, missing):
    data = VALID[kind]
    if kind == "webp":  # its last chunk has an odd length, and a byte that makes it even
        data = encode(scene(), "WEBP", xmp=b"x" * 11)
        assert data.endswith(b"x\0")
    assert np.array_equal(decode(data[:-missing], "x.tga").pixels, decode(data, "x.tga").pixels)


def test_a_bitmap_without_what_fills_its_last_row():
    data = encode(scene()[:, :63], "BMP")
    assert (len(data) - 54) // 48 == 192
    for missing in (1, 2, 3):
        assert np.array_equal(decode(data[:-missing]).pixels, scene()[:, :63])
    assert rejection(data[:-4]).reason == "truncated"


@pytest.mark.parametrize(
    "before", [b"\r\n", b"\n", b"\xef\xbb\xbf", b"\0\0", b"  \n\r\n" + b"x" * 11]
)
@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "png"])
def test_a_few_bytes_before_a_jpeg_or_png_do_not_matter(kind, before):
    for name in ("photo.jpg", "download", "x.bin"):
        got = decode(before + VALID[kind], name)
        assert np.array_equal(got.pixels, decode(VALID[kind]).pixels)
        assert got.format == kind[:4].upper().strip()


def test_bytes_before_a_picture_that_is_broken():
    cut = b"\r\n" + VALID["jpeg"][:-300]
    assert rejection(cut, "x.jpg").reason == "truncated"
    with pytest.raises(NotAnImage):  # by chance, perhaps
        decode(cut, "x.dat")
    for before in (b"x" * 17, b"ID3\4\0\0\0\0\0\0", b"%PDF-1.4\n"):
        with pytest.raises(NotAnImage):
            decode(before + VALID["jpeg"], "x.dat")


def test_both_ends_at_once():
    data = b"\r\n" + WHOLE["jpeg"][:-2]
    assert np.array_equal(decode(data).pixels, decode(WHOLE["jpeg"]).pixels)


@pytest.mark.parametrize("kind", VALID)
def test_what_follows_a_picture_does_not_matter(kind):
    data = VALID[kind]
    assert np.array_equal(
        decode(data + b"<html>" + bytes(500), "x.tga").pixels, decode(data, "x.tga").pixels
    )


def test_a_missing_end_is_no_licence_for_broken_checksums():
    data = encode(LARGE, "PNG")
    broken = bytearray(data[:-12])
    broken[-1] ^= 1
    assert rejection(bytes(broken)).reason == "corrupt"
