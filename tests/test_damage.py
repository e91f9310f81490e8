"""Damaged files are refused for the right reason, or accepted in part where that is policy."""

import contextlib
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
from PIL import Image, ImageFile

from lookalike.errors import RequestError
from lookalike.images.limits import ImageLimits
from lookalike.images.preparing import decode, prepare
from lookalike.images.rejections import REASONS, NotAnImage, Rejected
from tests.image_files import (
    VALID,
    bmp,
    encode,
    gif,
    golden,
    rejection,
    scene,
    tiff,
)

ACCEPT = ImageLimits(truncated="accept")


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "x.jpg", "empty"),
        (b"just some words", "photo.jpg", "not_an_image"),
        (b"BMW and other makers of cars", "photo.bmp", "not_an_image"),
        (b"\0" * 100, "https://host/dir/photo.WEBP", "not_an_image"),
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avif", "x", "truncated"),
        (b"\xff\xd8\xff\xe0", "x", "truncated"),
        (b"\x89PNG\r\n\x1a\n\0\0", "x", "truncated"),
        (VALID["png"].replace(b"IHDR", b"IHDX"), "x", "corrupt"),
        (bmp(0, 5, bytes(50)), "x", "corrupt"),
        (bmp(-127, 5, bytes(50)), "x", "corrupt"),
        (bmp(2, 2, bytes(50)).replace(b"\x18\0", b"\x30\x75", 1), "x", "corrupt"),
        (bmp(2, 2, bytes(50)).replace(b"\x28\0\0\0", b"\x42\0\0\0", 1), "x", "corrupt"),
        (gif(0, 0, (0, 0)), "x", "corrupt"),
        (VALID["png"].replace(b"\r\n\x1a", b"\n\x1a"), "x", "corrupt"),
        (VALID["jpeg2000"].replace(b"ihdr", b"ihdx"), "x", "corrupt"),
        (VALID["heic"].replace(b"hvc1", b"vvc1"), "x", "unsupported_format"),
        (golden("turned").replace(b"Exif\0\0\0\0", b"Exi\x8f\0\0\0\0", 1), "x", "corrupt"),
        (
            tiff(
                [
                    (256, 4, 2),
                    (257, 4, 2),
                    (258, 3, 8),
                    (259, 3, 50001),
                    (262, 3, 1),
                    (273, 4, 150),
                    (278, 4, 2),
                    (279, 4, 20),
                ],
                bytes(99),
            ),
            "x",
            "unsupported_format",
        ),
        (b"P7\nWIDTH 2\nHEIGHT 2\n", "x", "unsupported_format"),
        (b"\0\0\1\0\1\0\x10\x10\0\0" + bytes(12), "x", "corrupt"),
    ],
)
def test_reasons(data, name, reason):
    assert rejection(data, name).reason == reason


@pytest.mark.parametrize("kind", VALID)
def test_a_file_cut_in_half_is_truncated(kind):
    data = VALID[kind]
    assert rejection(data[: len(data) * 6 // 10], "x.tga").reason == "truncated"


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


# --- the policy for files that end too early


@pytest.mark.parametrize(
    "kind", ["jpeg", "png", "gif", "bmp", "tiff", "tga", "pnm", "jpeg progressive"]
)
def test_what_there_is_can_be_accepted(kind):
    options = {"progressive": " " in kind, "interlace": False}
    fmt = kind.split()[0].upper().replace("PNM", "PPM")
    whole = encode(scene(480, 640), fmt, **options)
    cut = whole[: len(whole) * 6 // 10]
    assert rejection(cut, "x.tga").reason == "truncated"
    got = decode(cut, "x.tga", limits=ACCEPT)
    assert (got.width, got.height) == (640, 480)
    if " " not in kind:  # where a cut costs rows, not sharpness
        lost = np.abs(got.pixels.astype(int) - decode(whole, "x.tga").pixels).mean(axis=(1, 2))
        assert (lost < 1).mean() > 0.4
    assert prepare(cut, "x.tga", sizes=[(32, 32)], limits=ACCEPT).arrays[0].std() > 1


@pytest.mark.parametrize("kind", VALID)
def test_a_picture_of_which_nothing_is_left_is_rejected_anyhow(kind):
    data = VALID[kind]
    head = max(data.find(mark) for mark in (b"\xff\xda", b"IDAT", b",\0\0\0\0@\0", b"VP8"))
    cut = data[: head + 12 if head > 0 else 60]
    assert rejection(cut, "x.tga", limits=ACCEPT).reason == "truncated"


def test_other_damage_is_rejected_under_both_policies():
    broken = bytearray(encode(scene(480, 640), "PNG"))
    broken[-13] ^= 1
    assert rejection(bytes(broken), limits=ACCEPT).reason == "corrupt"
    no_pixels = tiff([(256, 4, 2), (257, 4, 2), (258, 3, 8), (259, 3, 1), (262, 3, 1)], bytes(99))
    assert rejection(no_pixels, limits=ACCEPT).reason == "corrupt"


def test_a_policy_that_does_not_exist_is_refused():
    with pytest.raises(
        RequestError, match=r'truncated: must be "reject" or "accept", got \'keep\''
    ):
        ImageLimits(truncated="keep")


def test_policies_of_threads_do_not_mix():
    cut = encode(scene(480, 640), "PNG")[:2000]
    outcomes = []

    def work(limits):
        for _ in range(20):
            try:
                decode(cut, limits=limits)
            except Rejected:
                outcomes.append((limits.truncated, "rejected"))
            else:
                outcomes.append((limits.truncated, "decoded"))

    threads = [
        threading.Thread(target=work, args=(limits,)) for limits in [ACCEPT, ImageLimits()] * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) == {("accept", "decoded"), ("reject", "rejected")}
    assert len(outcomes) == 80
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


# --- robustness


@pytest.mark.parametrize(
    "error",
    [
        SyntaxError("odd"),
        OSError(),
        ValueError("x"),
        struct.error("short"),
        OverflowError("big"),
        IndexError("i"),
        KeyError("k"),
        ZeroDivisionError("z"),
        TypeError("t"),
        AttributeError("a"),
        RuntimeError("r"),
        zlib.error("z"),
        RecursionError("r"),
        AssertionError("a"),
    ],
    ids=lambda e: type(e).__name__,
)
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
    [
        (MemoryError(), "out_of_memory"),
        (EOFError("no more"), "truncated"),
        (Image.DecompressionBombError("too big"), "too_many_pixels"),
    ],
)
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
        assert refused.reason in REASONS
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
        "import sys; from lookalike.images.preparing import decode\n"
        "from lookalike.images.rejections import Rejected\n"
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
                decode(one, "x.tga")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
