"""Bytes become pixels here: decoding any file that may be an image, resizing, thumbnails.

One bad file must never end a run, and must never take the machine's memory. So the format is told
by content, only that format's decoder is tried, the header is checked before a pixel is decoded,
and whatever a decoder raises becomes a `Rejected` with a reason from a fixed list.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from lookalike.pixels import Pixels, to_rgb, upright, whole_factor
from lookalike.quiet_pillow import quiet_pillow
from lookalike.sniff import IMAGE_SUFFIXES, READ_FORMATS, claims_image, is_tga, sniff

__all__ = [
    "IMAGE_SUFFIXES", "PREPROCESSING", "REASONS", "DecodedImage", "ImageLimits", "NotAnImage",
    "Pixels", "Rejected", "decode", "resize", "sniff", "thumbnail_jpeg",
]  # fmt: skip

REASONS: tuple[str, ...] = (
    "unreadable",  # the file could not be opened or read (raised by the code that reads files)
    "empty",  # no bytes, and a name that claims an image
    "not_an_image",  # the name claims an image, the content is none
    "unsupported_format",  # an image of a kind that is not read
    "too_many_pixels",  # more pixels, or more memory to decode them, than the limits allow
    "too_many_bytes",  # a larger file than the limits allow
    "truncated",  # the file ends before the picture does
    "corrupt",  # the decoder found the data broken
    "out_of_memory",  # the machine had no memory left, within the limits
    "model_failed",  # decoded, but no usable vector came out (raised where models run)
)
"""Every reason a file can be rejected for."""

PREPROCESSING: dict[str, object] = {
    "version": 1,
    "frame": "first frame or page",
    "orientation": "EXIF (or XMP) orientation applied",
    "alpha": "composited over white",
    "colour": "ICC RGB and CMYK profiles to sRGB, relative colorimetric with black point "
    "compensation; without a profile, CMYK by (1-c)(1-k) and LAB from D50",
    "depth": "16-bit gray divided by 257; float gray times 255 within [0, 1], otherwise gray of "
    "other ranges stretched from its minimum to its maximum",
    "prescale": "JPEG by 1/2, 1/4 or 1/8 in the decoder, then box averages by a whole factor, "
    "while both sides stay at least twice the largest model input",
    "resize": "square stretch, bicubic with antialiasing (Pillow), in gamma-encoded sRGB",
}
"""Every choice that changes pixels, for the preprocessing fingerprint; JSON-able."""

_MAX_DETAIL = 500

_ORIENTATION = 0x0112


class Rejected(Exception):
    """An image, or a file that claims to be one, of which no pixels could be made.

    Attributes:
        reason: one of `REASONS`.
        detail: the cause in one line of at most 500 characters, in the decoder's own words where
            there are any.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Keep the reason, and the detail as one short line."""
        assert reason in REASONS, reason
        self.reason = reason
        self.detail = " ".join(detail.split())[:_MAX_DETAIL]
        super().__init__(reason, self.detail)

    def __str__(self) -> str:
        """The reason, then the detail where there is one."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class NotAnImage(Exception):
    """Neither the content nor the name of a file says that it is an image."""


@dataclass(frozen=True)
class ImageLimits:
    """What one file may cost; checked on the header, before any pixel is decoded.

    Attributes:
        max_pixels: width times height by the header. 2**27 lets the largest ordinary photographs
            (108 megapixels) through and stops headers that lie.
        max_bytes: size of the file.
        max_memory: bytes that file, decoder and result may need together, by an estimate from
            format, mode and size: the limit that matters for formats that need many bytes a pixel.
    """

    max_pixels: int = 1 << 27
    max_bytes: int = 256 << 20
    max_memory: int = 1 << 30


@dataclass(frozen=True)
class DecodedImage:
    """An upright RGB picture.

    Attributes:
        pixels: (h, w, 3) uint8, sRGB; smaller than `width` by `height` where it was reduced.
        width: pixels across, in the file, seen upright.
        height: pixels down, in the file, seen upright.
        format: what the content is: "JPEG", "PNG", "GIF", "BMP", "WEBP" or "TIFF".
    """

    pixels: Pixels
    width: int
    height: int
    format: str


def decode(
    data: bytes,
    name: str = "",
    *,
    limits: ImageLimits = ImageLimits(),
    min_side: int | None = None,
) -> DecodedImage:
    """Decode the first frame of an image file, upright, over white, as RGB.

    Args:
        data: the whole file.
        name: its path or URI; used only to tell a broken image from a file that is none.
        limits: what the file may cost.
        min_side: the larger side of the largest model input. Where given, the picture may be
            reduced while decoding, both sides staying at least twice as long as this.

    Returns:
        The picture, (h, w, 3) uint8.

    Raises:
        Rejected: an image, by content or name, that cannot be turned into pixels.
        NotAnImage: neither content nor name says image.
    """
    kind = _recognise(data, name)
    if len(data) > limits.max_bytes:
        raise Rejected(
            "too_many_bytes", f"{len(data)} bytes, more than the {limits.max_bytes} allowed"
        )
    stream = io.BytesIO(data)
    image: Image.Image | None = None
    with quiet_pillow():
        try:
            with _OPENERS[kind](stream) as image:
                size = image.size
                _check_header(image, kind, len(data), limits, min_side)
                if kind == "JPEG" and min_side:
                    # None keeps the colour model; the sides asked for are the least that come out
                    image.draft(None, (2 * min_side, 2 * min_side))
                if kind == "PNG":
                    _check_png_sums(data)
                image.load()
                orientation = _orientation(image)
                # a TIFF turns itself upright as it loads, and its size with it
                width, height = image.size if kind == "TIFF" else size
                pixels = to_rgb(image, kind, data, min_side)
        except Rejected:
            raise
        except Image.DecompressionBombError as e:
            raise Rejected("too_many_pixels", _words(e)) from e
        except MemoryError as e:
            raise Rejected("out_of_memory", _words(e)) from e
        except Exception as e:  # hostile files make Pillow raise nearly anything
            ended = _ended_early(kind, data, stream, image)
            words = _words(e)
            if words.startswith("decoder error") and image is not None:
                words += f" ({kind}, compression {image.info.get('compression', 'none')})"
            raise Rejected(_reason(e, ended), words) from e
    if orientation > 4:
        width, height = height, width
    return DecodedImage(upright(pixels, orientation), width, height, kind)


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Stretch a picture to a model's input size, antialiased.

    Pillow widens the kernel by the scale, so nothing aliases; bicubic keeps more detail than
    bilinear, whose widened triangle blurs.

    Args:
        pixels: (h, w, 3) uint8.
        size: (height, width) wanted.

    Returns:
        (height, width, 3) uint8, read-only, or `pixels` itself where it has that size already.
    """
    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def thumbnail_jpeg(pixels: Pixels, max_side: int) -> bytes:
    """A small JPEG file of a picture, for pages that people look at.

    Args:
        pixels: (h, w, 3) uint8.
        max_side: the longer side of the result, in pixels; smaller pictures stay as they are.

    Returns:
        The bytes of a JPEG file.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80, optimize=True)
    return out.getvalue()


def _recognise(data: bytes, name: str) -> str:
    """The format to decode, or the exception that says why there is none."""
    head = data[:1024]
    claims = claims_image(name)
    if not data:
        raise Rejected("empty", "the file has no bytes") if claims else NotAnImage("empty file")
    kind = sniff(head) or ("TGA" if is_tga(head, name) else None)
    if kind in READ_FORMATS:
        return str(kind)
    if kind:
        raise Rejected("unsupported_format", f"{kind} images are not read")
    if claims:
        raise Rejected("not_an_image", f"the content is no known image: it begins {head[:12]!r}")
    raise NotAnImage("neither content nor name says image")


# The classes are called directly: Image.open would hide a decoder's words behind "cannot identify
# image file", and would apply Pillow's process-wide pixel limit in place of ours.
_OPENERS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}


def _check_header(
    image: Image.Image, kind: str, n_bytes: int, limits: ImageLimits, min_side: int | None
) -> None:
    """Refuse what the limits do not allow, and TIFF files that hold a camera's raw data."""
    width, height = image.size
    if width * height > limits.max_pixels:
        raise Rejected(
            "too_many_pixels",
            f"{width} x {height} = {width * height} pixels, more than the "
            f"{limits.max_pixels} allowed",
        )
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        if 50706 in tags or (330 in tags and tags.get(254, 0) == 1):
            # the first page of such a file is a small preview, not the picture
            raise Rejected("unsupported_format", "camera raw (TIFF with a preview) is not read")
    need = n_bytes + _memory(image, kind, min_side)
    if need > limits.max_memory:
        raise Rejected(
            "too_many_pixels",
            f"{width} x {height} pixels ({kind}, {image.mode}) would need {need >> 20} MiB to "
            f"decode, more than the {limits.max_memory >> 20} MiB allowed",
        )


def _check_png_sums(data: bytes) -> None:
    """Refuse a PNG whose pixel data fail their checksums, which Pillow does not look at."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT" and end + 4 <= len(data):
            found = zlib.crc32(memoryview(data)[at + 4 : end])
            if found != int.from_bytes(data[end : end + 4], "big"):
                raise Rejected("corrupt", "bad checksum in an IDAT chunk")
        at = end + 4


def _memory(image: Image.Image, kind: str, min_side: int | None) -> int:
    """An upper estimate, from the header, of the bytes that decoding allocates."""
    width, height = image.size
    pixels = width * height
    stored = {"1": 1, "L": 1, "P": 1}.get(image.mode, 2 if image.mode.startswith("I;16") else 4)
    factor = whole_factor(width, height, min_side)
    result = 3 / factor**2
    rows = 16 * height  # Pillow's row pointers: they matter for a picture one pixel wide
    if kind == "JPEG":
        # coefficients of all components, which progressive and multi-scan files keep whole
        draft = max(s for s in (1, 2, 4, 8) if s <= factor)
        return int(pixels * (2 * len(image.getbands()) + stored / draft**2 + result)) + rows
    if kind == "WEBP":
        return int(pixels * (18 + result)) + rows  # the animation decoder holds several canvases
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        bits = tags.get(258, (8,))
        sample = max(1, sum(bits if isinstance(bits, tuple) else (bits,)) // 8)
        strip = width * min(height, int(tags.get(278, height) or height))
        tile = int(tags.get(322, 0)) * int(tags.get(323, 0))
        copies = 1 if tags.get(_ORIENTATION, 1) == 1 else 2  # Pillow turns it into a second image
        # beside image and result there is the decoder's buffer of one strip or tile
        return int(pixels * (copies * stored + result)) + max(strip, tile) * max(sample, 4) + rows
    return int(pixels * (stored + result)) + rows


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the metadata are damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata must not cost the picture; the decoders raise anything
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _ended_early(kind: str, data: bytes, stream: io.BytesIO, image: Image.Image | None) -> bool:
    """Whether a file that failed is shorter than its own structure says."""
    try:
        if kind == "WEBP":
            return len(data) < 8 + int.from_bytes(data[4:8], "little")
        if kind == "TIFF":
            return _tiff_end(data, image) > len(data)
        # the others are read in order: a header that failed at the last byte ended there
        return image is None and stream.tell() >= len(data)
    except Exception:  # tags of a hostile file may hold anything; then it is merely corrupt
        return False


def _tiff_end(data: bytes, image: Image.Image | None) -> int:
    """Where the first page's directory ends, or its last strip or tile where that could be read."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
        start = int.from_bytes(data[4:8], order)
        return start + 2 + 12 * int.from_bytes(data[start : start + 2], order)
    ends = [0]
    for offsets, sizes in ((273, 279), (324, 325)):
        pairs = zip(image.tag_v2.get(offsets, ()), image.tag_v2.get(sizes, ()), strict=False)
        ends += [offset + size for offset, size in pairs]
    return max(ends)


def _reason(error: Exception, ended: bool) -> str:
    words = str(error).lower()
    if ended or "truncated" in words or "not enough" in words or isinstance(error, EOFError):
        return "truncated"
    if re.search(r"unsupported|not supported|unknown (pixel mode|compression)", words):
        return "unsupported_format"
    return "corrupt"


def _words(error: BaseException) -> str:
    """What the decoder said; with the exception's name where the words alone say little."""
    words = str(error)
    plain = isinstance(error, OSError | SyntaxError | ValueError) and len(words) > 12
    return words if plain else f"{type(error).__name__}: {words}".rstrip(": ")
