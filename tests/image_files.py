"""Image files of every kind, made or in tests/golden, for the tests of decoding."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.images.preparing import decode
from lookalike.images.rejections import REASONS, Rejected

GOLDEN = Path(__file__).parent / "golden" / "heic"


def golden(name):
    """A HEIC file of `scene`, which nothing that tests may depend on can write."""
    return (GOLDEN / f"{name}.heic").read_bytes()


def scene(height=48, width=64):
    """Smooth, colourful and unlike any of its own mirror images or turns."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (255 * x / width, 255 * y / height, np.where((x < width / 2) & (y < 9), 255, 40))
    return np.stack(channels, axis=2).astype(np.uint8)


def encode(image, fmt, **options):
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour_type, rows, *extra):
    """A PNG from its raw rows (each with its filter byte), for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def tiff(tags, tail=b""):
    """A TIFF of one page from (tag, type, value) triples."""
    entries = b"".join(struct.pack("<HHII", t, kind, 1, v) for t, kind, v in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + tail


def bmp(width, height, tail=b""):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(tail), 0, 0, 54) + header + tail


def gif(width, height, frame=(1, 1)):
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\x00;"


def dng(rgb, orientation=1):
    """A camera raw file (Adobe DNG): one uncompressed plane behind a Bayer filter, from sRGB."""
    height, width, _ = rgb.shape
    light = np.round((rgb / 255) ** 2.2 * 65535).astype("<u2")
    plane = light[..., 1].copy()
    plane[0::2, 0::2], plane[1::2, 1::2] = light[0::2, 0::2, 0], light[1::2, 1::2, 2]
    from_xyz = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
    matrix = b"".join(struct.pack("<ii", round(10000 * value), 10000) for value in from_xyz)
    short, long, ratio, signed_ratio = 3, 4, 5, 10
    tags = [
        (254, long, 1, 0),
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, 1, 16),
        (259, short, 1, 1),
        (262, short, 1, 32803),
        (271, 2, 2, b"T\0"),
        (272, 2, 2, b"T\0"),
        (273, long, 1, 512),
        (274, short, 1, orientation),
        (277, short, 1, 1),
        (278, long, 1, height),
        (279, long, 1, plane.nbytes),
        (33421, short, 2, b"\2\0\2\0"),
        (33422, 1, 4, b"\0\1\1\2"),
        (50706, 1, 4, b"\1\4\0\0"),
        (50708, 2, 2, b"T\0"),
        (50717, long, 1, 65535),
        (50721, signed_ratio, 9, matrix),
        (50728, ratio, 3, struct.pack("<6I", *[1] * 6)),
        (50778, short, 1, 21),
    ]
    directory, tail = struct.pack("<H", len(tags)), b""
    for tag, kind, count, value in tags:
        field = value if isinstance(value, bytes) else struct.pack("<I", value)
        if len(field) > 4:
            tail, field = tail + field, struct.pack("<I", 300 + len(tail))
        directory += struct.pack("<HHI4s", tag, kind, count, field)
    return (
        (b"II*\0\x08\0\0\0" + directory).ljust(300, b"\0")
        + tail.ljust(212, b"\0")
        + plane.tobytes()
    )


def lossless_jpeg(image, precision=8, process=0xC3):
    """A lossless JPEG (ITU-T T.81, annex H), of gray or of three planes; predictor 1.

    Args:
        image: (h, w) or (h, w, 3) whole numbers of `precision` bits.
        precision: bits of a sample.
        process: the marker of the frame.
    """
    values = np.atleast_3d(np.asarray(image)).astype(int)
    height, width, planes = values.shape
    before = np.empty_like(values)
    before[:, 1:], before[1:, 0] = values[:, :-1], values[:-1, 0]
    before[0, 0] = 1 << (precision - 1)
    bits = []
    for step in (values - before).ravel():
        size = int(abs(step)).bit_length()
        code = step if step > 0 else step + (1 << size) - 1
        bits.append(format(size, "05b") + (format(code, f"0{size}b") if size else ""))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    body = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")

    def segment(marker, content):
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content

    frame = struct.pack(">BHHB", precision, height, width, planes)
    frame += b"".join(bytes([i + 1, 0x11, 0]) for i in range(planes))
    scan = bytes([planes]) + b"".join(bytes([i + 1, 0]) for i in range(planes)) + b"\1\0\0"
    table = b"\0" + bytes([0] * 4 + [17] + [0] * 11) + bytes(range(17))  # 17 codes of 5 bits
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") if planes == 3 else b""  # RGB
    parts = (adobe, segment(process, frame), segment(0xC4, table), segment(0xDA, scan), body)
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"


def rejection(data, name="x.png", **options):
    with pytest.raises(Rejected) as caught:
        decode(data, name, **options)
    error = caught.value
    assert error.reason in REASONS
    assert len(error.detail) <= 500
    assert "\n" not in error.detail
    return error


def difference(a, b):
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).mean()


VALID = {
    "jpeg": encode(scene(), "JPEG", quality=95),
    "jpeg progressive": encode(scene(), "JPEG", quality=95, progressive=True),
    "png": encode(scene(), "PNG"),
    "gif": encode(scene(), "GIF"),
    "bmp": encode(scene(), "BMP"),
    "webp": encode(scene(), "WEBP", lossless=True),
    "webp lossy": encode(scene(), "WEBP", quality=95),
    "tiff": encode(scene(), "TIFF"),
    "tiff lzw": encode(scene(), "TIFF", compression="tiff_lzw"),
    "tiff deflate": encode(scene(), "TIFF", compression="tiff_adobe_deflate"),
    "tiff jpeg": encode(scene(), "TIFF", compression="jpeg"),
    "heic": golden("plain"),
    "avif": encode(scene(), "AVIF", quality=95, subsampling="4:4:4"),
    "jpeg2000": encode(scene(), "JPEG2000"),
    "jpeg2000 codestream": encode(scene(), "JPEG2000", no_jp2=True),
    "ico": encode(scene(), "ICO", sizes=[(64, 48)]),
    "ico bitmap": encode(scene(), "ICO", sizes=[(64, 48)], bitmap_format="bmp"),
    "tga": encode(scene(), "TGA"),
    "tga rle": encode(scene(), "TGA", compression="tga_rle"),
    "pnm": encode(scene(), "PPM"),
}
