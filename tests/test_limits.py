"""What a file may cost is checked on its header."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lookalike.images.limits import ImageLimits
from lookalike.images.preparing import decode
from tests.image_files import VALID, bmp, chunk, encode, gif, golden, png, rejection, scene, tiff


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
    if kind != "heic":  # its coder works in larger blocks
        assert "64 x 48 = 3072" in error.detail
    error = rejection(VALID[kind], limits=ImageLimits(max_memory=3000))
    assert error.reason == "too_many_pixels"
    assert "MiB" in error.detail


ENORMOUS = {
    "png": png(65536, 65536, 8, 2, bytes(1000)),
    "bmp": bmp(3_000_000, 2_000_000, bytes(1000)),
    "gif": gif(65535, 65535),
    "gif frame": gif(1, 1, (65535, 65535)),
    "tiff": tiff(
        [
            (256, 4, 60000),
            (257, 4, 60000),
            (258, 3, 8),
            (259, 3, 1),
            (262, 3, 1),
            (273, 4, 300),
            (278, 4, 60000),
            (279, 4, 100),
        ],
        bytes(999),
    ),
    "tiff tile": tiff(
        [
            (256, 4, 10),
            (257, 4, 10),
            (258, 3, 8),
            (259, 3, 8),
            (262, 3, 1),
            (322, 4, 65536),
            (323, 4, 65536),
            (324, 4, 300),
            (325, 4, 9),
        ],
        bytes(999),
    ),
    "tall": png(1, 1 << 26, 8, 6, bytes(1000)),
    "past Pillow's limit": png(1 << 15, 1 << 15, 8, 2, bytes(1000)),
}


@pytest.mark.parametrize("kind", ENORMOUS)
def test_enormous_headers_are_refused_without_a_warning(kind, recwarn):
    assert rejection(ENORMOUS[kind]).reason == "too_many_pixels"
    assert not recwarn.list


@pytest.mark.parametrize(
    "kind", sorted(set(VALID) - {"ico bitmap"})
)  # of twice the height, with its mask
def test_pillow_warnings_of_large_pictures_do_not_leak(kind, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert decode(VALID[kind]).pixels.shape == (48, 64, 3)
    assert not recwarn.list


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_peak_memory_of_large_pictures_is_bounded(tmp_path):
    """Decoding 30 megapixels of RGBA costs little over what Pillow must hold (4 bytes a pixel)."""
    side = 5477
    rows = zlib.compress(bytes((side * 4 + 1) * side), 1)
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    code = (
        "import resource, sys; from lookalike.images.preparing import decode\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "data = open(sys.argv[1], 'rb').read(); before = peak()\n"
        "assert decode(data, min_side=224).pixels.shape == (457, 457, 3)\n"
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
def test_metadata_bombs_cost_nothing(extra):
    assert decode(png(1, 1, 8, 0, b"\0\x64", extra)).pixels.tolist() == [[[100] * 3]]
    assert PngImagePlugin.MAX_TEXT_CHUNK <= 1 << 20  # what bounds them


def test_enormous_announcements_of_every_container():
    """Where a decoder would allocate, or die, by what the file says of itself."""
    huge = struct.pack(">II", 60000, 60000)
    files = []
    for kind in ("heic", "avif"):
        at = VALID[kind].index(b"ispe") + 8
        files.append(VALID[kind][:at] + huge + VALID[kind][at + 8 :])
    at = VALID["jpeg2000"].index(b"ihdr") + 4
    files.append(VALID["jpeg2000"][:at] + huge + VALID["jpeg2000"][at + 8 :])
    at = VALID["jpeg2000"].index(b"\xff\x51") + 6  # the codestream says otherwise than its box
    files.append(VALID["jpeg2000"][:at] + huge + VALID["jpeg2000"][at + 8 :])
    bits = (16383) | (16383 << 14)
    files.append(b"RIFF\x64\0\0\0WEBPVP8L\x50\0\0\0\x2f" + struct.pack("<I", bits) + bytes(80))
    canvas = b"\0\0\0\0\xff\xff\xff\xff\xff\xff"
    files.append(b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0" + canvas + bytes(80))
    icon = struct.pack("<4B2H2I", 0, 0, 0, 0, 1, 32, 100, 22)
    header = struct.pack("<IiiHHIIiiII", 40, 65535, 65535, 1, 32, 0, 0, 0, 0, 0, 0)
    files.append(b"\0\0\1\0\1\0" + icon + header + bytes(60))
    files.append(b"\0\0\1\0\1\0" + icon + png(65535, 65535, 8, 6, bytes(60)))
    files.append(b"P6 60000 60000 255\n" + bytes(60))
    files.append(encode(scene(), "TGA")[:12] + b"\xff\xff\xff\xff" + encode(scene(), "TGA")[16:])
    for data in files:
        assert rejection(data).reason == "too_many_pixels", data[:20]


def test_components_of_the_codestream_count():
    data = bytearray(encode(scene(480, 640), "JPEG2000"))
    tight = ImageLimits(max_memory=60 * 480 * 640)
    assert decode(bytes(data), limits=tight).width == 640
    at = data.index(b"\xff\x51") + 38
    data[at : at + 2] = struct.pack(">H", 100)
    assert "MiB" in rejection(bytes(data), limits=tight).detail


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "AVIF"])
def test_announced_frames_are_limited_and_not_decoded(fmt):
    frames = [Image.new("RGB", (20, 10), (80 * i, 0, 0)) for i in range(3)]
    data = encode(frames[0], fmt, save_all=True, append_images=frames[1:])
    assert decode(data, limits=ImageLimits(max_frames=3)).width == 20
    error = rejection(data, limits=ImageLimits(max_frames=2))
    assert error.reason == "too_many_frames"
    assert "3 frames" in error.detail


def test_pictures_of_a_heic_file_count_as_frames():
    assert rejection(golden("two"), limits=ImageLimits(max_frames=1)).reason == "too_many_frames"
    assert decode(golden("two"), limits=ImageLimits(max_frames=2)).width == 64


def test_a_lying_frame_count_costs_nothing():
    control = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    assert rejection(png(1, 1, 8, 0, b"\0\0", control)).reason == "too_many_frames"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "WEBP", "ICO", "PNM", "TGA", "JPEG"])
def test_estimates_of_memory_hold(kind, tmp_path):
    """What decoding takes at its peak is within what the header made it out to be."""
    pixels = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    if kind == "ICO":
        whole = encode(pixels, "PNG", compress_level=1)
        entry = struct.pack("<4B2H2I", 0, 0, 0, 0, 1, 32, len(whole), 22)
        data = b"\0\0\1\0\1\0" + entry + whole
    else:
        fast = {"AVIF": {"speed": 10}, "WEBP": {"method": 0}, "JPEG": {"progressive": True}}
        fmt = "PPM" if kind == "PNM" else kind
        data = encode(pixels, fmt, **fast.get(kind, {}))
    (tmp_path / "x.tga").write_bytes(data)
    (tmp_path / "small").write_bytes(VALID[kind.lower()])
    code = (
        "import resource, sys; from lookalike.images import limits, preparing as images\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "data, small = (open(path, 'rb').read() for path in sys.argv[1:])\n"
        "images.prepare(small, 'x.tga', sizes=[(32, 32)])\n"
        "needs = []\n"
        "limits.ImageLimits.check_memory = lambda self, need, what: needs.append(need)\n"
        "before = peak(); images.prepare(data, 'x.tga', sizes=[(32, 32)])\n"
        "print(peak() - before, max(needs))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.tga"), str(tmp_path / "small")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took, estimated = map(int, done.stdout.split())
    assert took < estimated + (4 << 20)
