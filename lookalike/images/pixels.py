"""A loaded Pillow image of any mode becomes 8-bit RGB or gray, over white where it has alpha."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from lookalike.images.colour import Transform, to_srgb

# Blocks keep the conversions of a large image from existing whole beside it.
_BLOCK = 1024

Pixels = NDArray[np.uint8]

_Convert = Callable[[Image.Image], Image.Image]
_Split = Callable[[Image.Image], tuple[Image.Image, Image.Image]]


def simplify(
    image: Image.Image, kind: str, data: bytes, min_side: int | None
) -> tuple[Image.Image, Transform | None]:
    """Turn a loaded image into opaque RGB or gray, reduced by a whole factor.

    Args:
        image: loaded, and not yet turned upright.
        kind: its format, as `lookalike.sources.sniff.sniff` names it.
        data: the file's bytes, of which headers are looked at.
        min_side: both sides stay at least twice this; None leaves the size alone.

    Returns:
        A picture of mode RGB or L, which may be the image itself, and what still takes it from its
        colours to sRGB. What exists beside the two is the size of a few blocks.
    """
    factor = whole_factor(*image.size, min_side)
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        # nearly every file: nothing is copied
        whole = image.reduce(factor) if factor > 1 else image
        return whole, to_srgb(image, image.mode, kind, data)
    mode, convert = _converter(image, kind, data)
    width, height = image.size
    simple = Image.new(mode, (-(-width // factor), -(-height // factor)))
    for left, top, block in _blocks(image, max(1, _BLOCK // factor) * factor):
        # a block is a whole number of cells, so the averages are those of the whole image
        small = convert(block)
        if factor > 1:
            small = small.reduce(factor)
        simple.paste(small, (left // factor, top // factor))
    return simple, None if image.mode == "CMYK" else to_srgb(image, mode, kind, data)


def clear_outside(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """A copy of which only a part is there, and all else is transparent."""
    copy = image.convert("RGBA")
    alpha = Image.new("L", image.size, 0)
    alpha.paste(copy.getchannel("A").crop(box), box)
    copy.putalpha(alpha)
    return copy


def _blocks(image: Image.Image, step: int = _BLOCK) -> Iterator[tuple[int, int, Image.Image]]:
    """Left and upper edge of each part of an image, and the part."""
    width, height = image.size
    for top in range(0, height, step):
        for left in range(0, width, step):
            box = (left, top, min(left + step, width), min(top + step, height))
            yield left, top, image.crop(box)


def to_array(image: Image.Image) -> Pixels:
    """The (h, w, 3) uint8 pixels of a picture of mode RGB or L."""
    if image.mode == "RGB" and image.height <= _BLOCK:
        return np.asarray(image)
    out = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _BLOCK):
        rows = image.crop((0, top, image.width, min(top + _BLOCK, image.height)))
        out[top : top + _BLOCK] = np.asarray(rows).reshape(rows.height, rows.width, -1)
    return out


def _converter(image: Image.Image, kind: str, data: bytes) -> tuple[str, _Convert]:
    """The mode, and the function that gives 8-bit RGB or gray without alpha, for blocks."""
    mode, key = image.mode, image.info.get("transparency")
    if mode == "CMYK":
        return "RGB", to_srgb(image, mode, kind, data) or (lambda block: block.convert("RGB"))
    if kind in ("BMP", "TGA") and mode in ("RGBA", "LA") and image.getextrema()[-1] == (0, 0):
        plain = mode[:-1]  # a byte that nobody filled
        return plain, lambda block: block.convert(plain)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or (mode == "P" and key is not None):
        plain, split = ("L" if mode in ("LA", "La") else "RGB"), _split_alpha
    else:
        image.info.pop("transparency", None)  # a colour, matched below: Pillow's match is inexact
        plain, convert = _opaque(image, kind)
        colour = _transparent_colour(mode, key, data[24] if kind == "PNG" else 8)
        if colour is None:
            return plain, convert

        def split(block: Image.Image) -> tuple[Image.Image, Image.Image]:
            simple = convert(block)
            values = np.asarray(block if mode[0] in "IF" else simple)
            match = (values == colour).all(axis=2) if values.ndim == 3 else values == colour
            return simple, Image.fromarray(np.where(match, 0, 255).astype(np.uint8))

    ground = _ground(image, split)
    return plain, lambda block: _over(ground, *split(block))


def _opaque(image: Image.Image, kind: str) -> tuple[str, _Convert]:
    """The same for an image without alpha, or but for a colour that stands for it."""
    if image.mode[0] in "IF":
        low, high = _gray_range(image, kind)
        return "L", lambda block: _gray(_values(block, image), low, high)
    plain = "L" if image.mode in ("1", "L") else "RGB"
    return plain, lambda block: block.convert(plain)


def _transparent_colour(mode: str, key: object, depth: int) -> int | tuple[int, ...] | None:
    """The colour that stands for no colour, as blocks of that mode have it; None where none does.

    Args:
        mode: the image's.
        key: what the file says.
        depth: bits of a value in the file.
    """
    if mode[0] in "IF":
        return key if isinstance(key, int) else None
    if mode == "RGB":
        if not isinstance(key, tuple) or len(key) != 3:
            return None
        return tuple(v >> 8 if depth == 16 else v for v in key)
    if not isinstance(key, int | tuple):
        return None
    # Pillow spreads 1, 2 and 4 bit gray over 0..255 but leaves the key as stored
    stored = int(key if isinstance(key, int) else key[0])
    gray = stored * 255 // (2**depth - 1) if depth < 8 else stored
    return gray if mode in ("1", "L") else (gray,) * 3


def _split_alpha(block: Image.Image) -> tuple[Image.Image, Image.Image]:
    """A block's RGB or gray, and its alpha."""
    if block.mode in ("LA", "La"):
        block = block.convert("LA")
        return block.getchannel("L"), block.getchannel("A")
    if block.mode != "RGBA":
        block = block.convert("RGBA")
    return block.convert("RGB"), block.getchannel("A")


def _over(ground: str, colours: Image.Image, alpha: Image.Image) -> Image.Image:
    if alpha.getextrema() == (255, 255):
        return colours
    blended = Image.new(colours.mode, colours.size, ground)
    blended.paste(colours, mask=alpha)
    return blended


_FAINT = 15  # of 255: what differs from white by no more is not seen on it
_LEAST_INK = 0.02


def _ground(image: Image.Image, split: _Split) -> str:
    """What a picture with alpha is blended with: white, unless it would vanish there.

    A white drawing on a transparent ground has its shape in the alpha alone; on black it is seen.
    What counts is the ink that a picture leaves on white, beside its area: neither changes as it is
    resized, nor much as it is compressed.

    Args:
        image: with alpha.
        split: gives colours and alpha of its blocks.
    """
    ink = area = 0.0
    thinnest, thickest = 255, 0
    levels, enough = np.arange(256), _LEAST_INK * 255 * image.width * image.height
    for _, _, block in _blocks(image):
        colours, alpha = split(block)
        counts = np.array(alpha.histogram())
        there = np.flatnonzero(counts)
        thinnest, thickest = min(thinnest, int(there[0])), max(thickest, int(there[-1]))
        area += float(levels @ counts)
        if there[-1] == 0:
            continue
        darkest = colours.getchannel(0)
        for band in range(1, len(colours.getbands())):
            darkest = ImageChops.darker(darkest, colours.getchannel(band))
        left = ImageChops.multiply(ImageChops.invert(darkest), alpha).histogram()
        ink += float((levels[_FAINT:] - _FAINT) @ left[_FAINT:])
        if ink > enough:  # whatever the rest is
            return "white"
    return "black" if thickest - thinnest > _FAINT and ink <= _LEAST_INK * area else "white"


def _gray(values: NDArray[Any], low: float, high: float) -> Image.Image:
    """Gray of any depth, `low` to `high`, as 8-bit gray; what is not a number becomes `low`."""
    with np.errstate(invalid="ignore"):
        scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return Image.fromarray(np.nan_to_num(scaled, nan=0.0).clip(0, 255).round().astype(np.uint8))


def _values(block: Image.Image, image: Image.Image) -> NDArray[Any]:
    """The values of a block; Pillow keeps those of 32 bits as if they had signs."""
    values = np.asarray(block)
    tags = getattr(image, "tag_v2", {})
    unsigned = tags.get(_BITS) == (32,) and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1
    return values.view(np.uint32) if unsigned and image.mode == "I" else values


_BITS, _SAMPLE_FORMAT, _PHOTOMETRIC = 258, 339, 262


def _gray_range(image: Image.Image, kind: str) -> tuple[float, float]:
    """The values that become black and white, for an image of mode I;16, I or F."""
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        # Pillow reads 12-bit TIFF without scaling, and 16-bit white-is-zero without inverting
        bits = tags.get(_BITS, 16)
        top = float(2 ** int(bits[0] if isinstance(bits, tuple) else bits) - 1)
        return (top, 0.0) if tags.get(_PHOTOMETRIC) == 0 else (0.0, top)
    if kind == "PNM" and image.mode == "I":
        return 0.0, 65535.0  # Pillow has scaled it
    low, high = np.inf, -np.inf
    for _, _, block in _blocks(image):
        values = _values(block, image)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if image.mode == "F" and tags.get(_PHOTOMETRIC, 1) == 0 and np.isfinite(low):
        return (1.0, 0.0) if low >= 0 and high <= 1 else (high, low if low < high else low - 1)
    if image.mode == "F" and low >= 0 and high <= 1:
        return 0.0, 1.0
    if image.mode == "I" and low >= 0 and high <= 65535:
        return 0.0, 255.0 if high <= 255 else 65535.0
    if not np.isfinite(low):
        return 0.0, 1.0  # no number in it: black
    return (low, high) if low < high else (min(low, 0.0), max(low, 1.0))


def whole_factor(width: int, height: int, min_side: int | None) -> int:
    """The whole number to reduce by so that both sides stay at least twice `min_side`."""
    return max(1, min(width, height) // (2 * min_side)) if min_side else 1


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo what the camera recorded (EXIF 2.3, tag 0x0112); the result is C-contiguous."""
    turned = pixels.transpose(1, 0, 2) if orientation > 4 else pixels
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)
