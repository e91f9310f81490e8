"""A loaded Pillow image of any mode becomes 8-bit RGB or gray, over white."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.pictures.colour import Transform, to_srgb

# Blocks keep the conversions of a large image from existing whole beside it.
_BLOCK = 1024

Pixels = NDArray[np.uint8]

_Convert = Callable[[Image.Image], Image.Image]


def simplify(
    image: Image.Image, kind: str, data: bytes, min_side: int | None
) -> tuple[Image.Image, Transform | None]:
    """Turn a loaded image into RGB or gray over white, reduced by a whole factor.

    Args:
        image: loaded, and not yet turned upright.
        kind: its format, as `lookalike.pictures.sniff.sniff` names it.
        data: the file's bytes, of which PNG's header is looked at.
        min_side: both sides stay at least twice this; None leaves the size alone.

    Returns:
        A picture of mode RGB or L, which may be the image itself, and what still takes it from its
        colour profile to sRGB. What exists beside the two is the size of a few blocks.
    """
    factor = whole_factor(*image.size, min_side)
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        # nearly every file: nothing is copied
        return (image.reduce(factor) if factor > 1 else image), to_srgb(image, image.mode)
    mode, convert = _converter(image, kind, data)
    width, height = image.size
    simple = Image.new(mode, (-(-width // factor), -(-height // factor)))
    step = max(1, _BLOCK // factor) * factor
    for top in range(0, height, step):
        for left in range(0, width, step):
            box = (left, top, min(left + step, width), min(top + step, height))
            # a block is a whole number of cells, so the averages are those of the whole image
            block = convert(image.crop(box))
            if factor > 1:
                block = block.reduce(factor)
            simple.paste(block, (left // factor, top // factor))
    return simple, None if image.mode == "CMYK" else to_srgb(image, mode)


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
    """The mode and the function that give 8-bit RGB or gray over white, for blocks of an image."""
    mode, key = image.mode, image.info.get("transparency")
    if mode == "P":
        return "RGB", _over_white if key is not None else lambda block: block.convert("RGB")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        return "RGB", _over_white
    if mode == "CMYK":
        return "RGB", to_srgb(image, "CMYK") or (lambda block: block.convert("RGB"))
    image.info.pop("transparency", None)  # a colour, matched below: Pillow's match is inexact
    depth = data[24] if kind == "PNG" else 8
    if mode[0] in "IF":
        low, high = _gray_range(image, kind)
        return "L", lambda block: _gray(np.asarray(block), low, high, key)
    plain = "L" if mode in ("1", "L") else "RGB"
    if not isinstance(key, int | tuple):
        return plain, lambda block: block.convert(plain)
    if mode == "RGB":
        colour = tuple(v >> 8 if depth == 16 else v for v in key) if isinstance(key, tuple) else ()
    else:
        # Pillow spreads 1, 2 and 4 bit gray over 0..255 but leaves the key as stored
        gray = int(key if isinstance(key, int) else key[0])
        colour = (gray * 255 // (2 ** min(depth, 8) - 1) if depth < 8 else gray,) * 3
    return "RGB", lambda block: _colour_over_white(block.convert("RGB"), colour)


def _over_white(block: Image.Image) -> Image.Image:
    if block.mode == "La":
        block = block.convert("LA")
    if block.mode != "RGBA":
        block = block.convert("RGBA")
    alpha = block.getchannel("A")
    rgb = block.convert("RGB")
    if alpha.getextrema() == (255, 255):
        return rgb
    white = Image.new("RGB", block.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _colour_over_white(block: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """White wherever the block has the one colour that the file declares transparent."""
    rgb = np.array(block)
    rgb[(rgb == colour).all(axis=2)] = 255
    return Image.fromarray(rgb)


def _gray(values: NDArray[Any], low: float, high: float, key: object) -> Image.Image:
    """Gray of any depth, `low` to `high`, as 8-bit gray; what is not a number becomes `low`."""
    with np.errstate(invalid="ignore"):
        scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    gray = np.nan_to_num(scaled, nan=0.0).clip(0, 255).round().astype(np.uint8)
    if isinstance(key, int):
        gray[values == key] = 255
    return Image.fromarray(gray)


def _gray_range(image: Image.Image, kind: str) -> tuple[float, float]:
    """The values that become black and white, for an image of mode I;16, I or F."""
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        # Pillow reads 12-bit TIFF without scaling, and 16-bit white-is-zero without inverting
        bits = tags.get(258, 16)
        top = float(2 ** int(bits[0] if isinstance(bits, tuple) else bits) - 1)
        return (top, 0.0) if tags.get(262) == 0 else (0.0, top)
    if kind == "PNM" and image.mode == "I":
        return 0.0, 65535.0  # Pillow has scaled it
    low, high = np.inf, -np.inf
    for top in range(0, image.height, _BLOCK):
        for left in range(0, image.width, _BLOCK):
            right, bottom = min(left + _BLOCK, image.width), min(top + _BLOCK, image.height)
            values = np.asarray(image.crop((left, top, right, bottom)))
            values = values[np.isfinite(values)]
            if values.size:
                low, high = min(low, float(values.min())), max(high, float(values.max()))
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
