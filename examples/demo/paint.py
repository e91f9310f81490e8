"""A little painting on arrays: pictures are (h, w, 3) float32, masks (h, w), all from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[Any]  # float32 unless said otherwise
Random = np.random.Generator
RGB = tuple[float, float, float]


def hexes(text: str) -> Array:
    """Colours written as "ff8800 102030", as (n, 3) float32 from 0 to 1."""
    return np.array([list(bytes.fromhex(word)) for word in text.split()], np.float32) / 255


def pick(rng: Random, palettes: Sequence[str], jitter: float = 0.04) -> Array:
    """One of the palettes, its colours shifted a little, together."""
    colors = hexes(palettes[int(rng.integers(len(palettes)))])
    shifted = colors * (1 + rng.normal(0, jitter, 3)) + rng.normal(0, jitter / 3, 3)
    return np.clip(shifted, 0, 1).astype(np.float32)


def axes(w: int, h: int) -> tuple[Array, Array]:
    """Coordinates x (1, w) and y (h, 1) in units of the shorter side."""
    unit = min(w, h)
    return np.arange(w, dtype=np.float32)[None, :] / unit, np.arange(h, dtype=np.float32)[
        :, None
    ] / unit


def noise(rng: Random, w: int, h: int, across: float, down: float, octaves: int = 4) -> Array:
    """Fractal noise (h, w) from 0 to 1: random grids, each finer and half as strong."""
    total = np.zeros((1, 1), np.float32)
    for octave in range(
        octaves
    ):  # each sum is enlarged only to the next grid: cheaper than to (h, w) every time
        grid = (min(w, int(across * 2**octave) + 2), min(h, int(down * 2**octave) + 2))
        total = enlarge(total, grid) + rng.random(grid[::-1], np.float32) * np.float32(0.5**octave)
    total = enlarge(total, (w, h))
    low, high = float(total.min()), float(total.max())
    scaled: Array = (total - low) / (high - low)
    return scaled


def enlarge(grid: Array, size: tuple[int, int]) -> Array:
    """The grid at another size (w, h), smoothly."""
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))


def ridge(rng: Random, w: int, cells: float, octaves: int = 6) -> Array:
    """A profile (w,) from 0 to 1."""
    profile: Array = noise(rng, w, 1, cells, 0, octaves)[0]
    return profile


def gradient(t: Array, colors: Array) -> Array:
    """Colours spread evenly over t from 0 to 1: (h, w, 3)."""
    stops = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(t, stops, colors[:, c]) for c in range(3)], -1).astype(np.float32)


def mix(below: Array, above: Array, mask: Array) -> Array:
    """`above` (a colour or a picture) over `below` where the mask says so."""
    mask = np.clip(mask, 0, 1, dtype=np.float32)
    mixed = np.empty((*mask.shape, 3), np.float32)
    for c in range(3):  # faster than broadcasting over a last axis of three
        mixed[..., c] = (above[..., c] - below[..., c]) * mask + below[..., c]
    return mixed


def smooth(x: Array, low: float, high: float) -> Array:
    """0 under low, 1 over high, a soft step between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def to_image(pixels: Array) -> Image.Image:
    """The picture as 8 bits."""
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))


def ink(color: Array | RGB, gain: float = 1.0) -> tuple[int, int, int]:
    """A colour for ImageDraw."""
    r, g, b = (int(min(max(float(c) * gain, 0.0), 1.0) * 255) for c in color)
    return r, g, b


def stroke(pixels: Array, paint: Callable[[ImageDraw.ImageDraw], None]) -> Array:
    """Paints shapes over a picture, in coordinates twice as fine, which smooths their edges."""
    h, w = pixels.shape[:2]
    image = to_image(pixels).resize((2 * w, 2 * h), Image.Resampling.BILINEAR)
    paint(ImageDraw.Draw(image))
    return np.asarray(image.reduce(2), np.float32) / 255


def stencil(w: int, h: int, paint: Callable[[ImageDraw.ImageDraw], None]) -> Array:
    """A mask (h, w) of shapes painted with fill 255, in coordinates twice as fine."""
    image = Image.new("L", (2 * w, 2 * h))
    paint(ImageDraw.Draw(image))
    return np.asarray(image.reduce(2), np.float32) / 255
