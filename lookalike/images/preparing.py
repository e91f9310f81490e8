"""Bytes become pixels here: decoding any file that may be an image, resizing, thumbnails.

One bad file must never end a run, and must never take the machine's memory. So the format is told
by content, only that format's decoder is tried, the header is checked before a pixel is decoded,
and whatever a decoder raises becomes a `Rejected` with a reason from a fixed list.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from lookalike.images.cropping import Crop
from lookalike.images.limits import ImageLimits
from lookalike.images.loading import load
from lookalike.images.pixels import Pixels, to_array, upright

_DEFAULT_LIMITS = ImageLimits()

# The words are part of the fingerprint, and another fingerprint embeds every store anew. So they
# stay where nothing changes but pictures that came out wrong; docs/design.md says what holds.
PREPROCESSING: dict[str, object] = {
    "version": 2,
    "frame": "first frame or page; the primary picture of HEIC; the largest icon",
    "orientation": "EXIF (or XMP) orientation applied; in HEIC and AVIF the container's alone",
    "alpha": "composited over white",
    "colour": "ICC RGB, gray and CMYK profiles to sRGB, relative colorimetric with black point "
    "compensation, RGB and gray after the last resize; without a profile, CMYK by (1-c)(1-k) and "
    "LAB from D50",
    "depth": "16-bit gray divided by 257; 16-bit colour by 256; float gray times 255 within "
    "[0, 1], otherwise gray of other ranges stretched from its minimum to its maximum",
    "raw": "LibRaw with the camera's white balance, half size while both sides stay at least twice "
    "the largest model input",
    "prescale": "JPEG by 1/2, 1/4 or 1/8 in the decoder, then box averages by a whole factor, "
    "while both sides stay at least twice the largest model input",
    "resize": "square stretch, Hamming window with antialiasing (Pillow), in gamma-encoded values",
}
"""Every choice that changes pixels, for the preprocessing fingerprint; JSON-able."""


@dataclass(frozen=True)
class DecodedImage:
    """An upright RGB picture.

    Attributes:
        pixels: (h, w, 3) uint8, sRGB; smaller than `width` by `height` where it was reduced.
        width: pixels across, in the file, seen upright.
        height: pixels down, in the file, seen upright.
        format: what the content is, as `sniff` names it: "JPEG", "PNG", "HEIC" and so on.
    """

    pixels: Pixels
    width: int
    height: int
    format: str


@dataclass(frozen=True)
class Prepared:
    """A picture at the input sizes of models.

    Attributes:
        arrays: for each size asked for, (h, w, 3) uint8, sRGB, C-contiguous.
        width: pixels across, in the file, seen upright.
        height: pixels down, in the file, seen upright.
        format: what the content is, as `sniff` names it.
    """

    arrays: tuple[Pixels, ...]
    width: int
    height: int
    format: str


def decode(
    data: bytes,
    name: str = "",
    *,
    limits: ImageLimits = _DEFAULT_LIMITS,
    min_side: int | None = None,
) -> DecodedImage:
    """Decode the first frame of an image file, upright, without alpha, as RGB.

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
    stored = load(data, name, limits, min_side)
    image = stored.to_srgb(stored.image) if stored.to_srgb else stored.image
    pixels = upright(to_array(image), stored.orientation)
    return DecodedImage(pixels, stored.width, stored.height, stored.format)


def prepare(
    data: bytes,
    name: str = "",
    *,
    sizes: Sequence[tuple[int, int]],
    limits: ImageLimits = _DEFAULT_LIMITS,
    crop: Crop | None = None,
) -> Prepared:
    """Take an image file to the input sizes of models by the shortest way.

    The same pictures, but for rounding, as `resize` makes of what `decode` gives: here, nothing but
    the small results is converted to sRGB, turned upright and copied out of Pillow.

    Args:
        data: the whole file.
        name: as in `decode`.
        sizes: (height, width) of each result.
        limits: what the file may cost.
        crop: the part to take, where that is not all; it comes from the picture in full size.

    Returns:
        One array for each size.

    Raises:
        Rejected: an image, by content or name, that cannot be turned into pixels.
        NotAnImage: neither content nor name says image.
        CropError: the crop leaves the picture.
    """
    if crop:
        whole = decode(data, name, limits=limits)
        part = crop.of(whole.pixels, (whole.width, whole.height))
        parts = tuple(resize(part, size) for size in sizes)
        return Prepared(parts, whole.width, whole.height, whole.format)
    stored = load(data, name, limits, min_side=max(max(size) for size in sizes))
    arrays = []
    for height, width in sizes:
        lying = (height, width) if stored.orientation > 4 else (width, height)
        small = _resized(stored.image, lying, stored.extent)
        if stored.to_srgb:
            small = stored.to_srgb(small)
        arrays.append(upright(to_array(small), stored.orientation))
    return Prepared(tuple(arrays), stored.width, stored.height, stored.format)


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Stretch a picture to a model's input size, antialiased.

    Pillow widens the kernel by the scale, so nothing aliases. The Hamming window is as sharp as
    bicubic when it reduces, at the cost of bilinear.

    Args:
        pixels: (h, w, 3) uint8.
        size: (height, width) wanted.

    Returns:
        (height, width, 3) uint8, or `pixels` itself where it has that size already.
    """
    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels)
    return to_array(_resized(image, (width, height), image.size))


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


def _resized(image: Image.Image, size: tuple[int, int], extent: tuple[float, float]) -> Image.Image:
    """Stretch the part of this extent, from the upper left, to (width, height)."""
    if image.size == size and sum(size) == sum(extent):  # the extent is never the larger
        return image
    return image.resize(size, Image.Resampling.HAMMING, (0, 0, *extent))
