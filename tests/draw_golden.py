"""Draws the golden pictures that engines are compared on: `python -m tests.draw_golden`.

The files are what counts: other versions of the demo's scenes or of Pillow draw them differently,
which does no harm, but they need not be drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from examples.demo.pictures import draw

FOLDER = Path(__file__).parent.parent / "lookalike" / "models" / "golden"
SIDE = 256
SCENES = (
    "balloons",
    "city",
    "flowers",
    "forest",
    "galaxy",
    "mountains",
    "seascape",
    "tiles",
    "underwater",
    "wood",
)


def pictures() -> Iterator[tuple[str, Image.Image]]:
    """Names of files and what they show."""
    for scene in SCENES:
        image, _ = draw(scene, 0)
        side = min(image.size)
        yield f"{scene}.jpg", image.convert("RGB").crop((0, 0, side, side)).resize((SIDE, SIDE))
    yield "dark.png", dark()
    yield "flat.png", Image.new("RGB", (SIDE, SIDE), (118, 120, 123))
    yield "noise.jpg", noise()
    yield "pack.jpg", pack()
    yield "saturated.png", saturated()
    yield "text.png", text()


def dark() -> Image.Image:
    """Hardly any light: values up to 14."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    glow = 14 * np.exp(-8 * ((x - 0.6) ** 2 + (y - 0.4) ** 2))
    return Image.fromarray(np.stack([glow, 0.7 * glow, 0.4 * glow], -1).astype(np.uint8))


def noise() -> Image.Image:
    """Grain of two sizes, in gray and in colour."""
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 256, (SIDE, SIDE, 1)).repeat(3, 2)
    coarse = rng.integers(0, 256, (32, 32, 3)).repeat(8, 0).repeat(8, 1)
    return Image.fromarray(((fine + 2 * coarse) // 3).astype(np.uint8))


def pack() -> Image.Image:
    """A product before white, with its shadow."""
    image = Image.new("RGB", (SIDE, SIDE), (252, 252, 250))
    pen = ImageDraw.Draw(image)
    pen.ellipse((60, 205, 215, 235), fill=(205, 205, 205))
    image = image.filter(ImageFilter.GaussianBlur(8))
    pen = ImageDraw.Draw(image)
    pen.rectangle((80, 40, 180, 220), fill=(196, 32, 38))
    pen.polygon([(180, 40), (205, 60), (205, 212), (180, 220)], fill=(128, 18, 24))
    pen.ellipse((95, 105, 165, 175), fill=(244, 200, 60))
    pen.text((92, 60), "GOLDEN", fill=(255, 250, 240), font=ImageFont.load_default(22))
    return image


def saturated() -> Image.Image:
    """Patches of the purest colours there are."""
    rng = random.Random(5)
    image = Image.new("RGB", (SIDE, SIDE))
    pen = ImageDraw.Draw(image)
    for top in range(0, SIDE, 32):
        for left in range(0, SIDE, 32):
            colour = tuple(rng.choice((0, 255)) for _ in range(3))
            pen.rectangle((left, top, left + 31, top + 31), fill=colour)
    return image


def text() -> Image.Image:
    """A page of words."""
    rng = random.Random(2)
    image = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for line in range(16):
        words = ("".join(rng.choices(letters, k=rng.randint(2, 8))) for _ in range(9))
        pen.text((12, 8 + 15 * line), " ".join(words), fill=(20, 20, 30))
    return image


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, image in pictures():
        image.save(FOLDER / name, **({"quality": 88} if name.endswith("jpg") else {}))


if __name__ == "__main__":
    main()
