"""What happens to pictures on their way: pure functions from picture to picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Picture = Image.Image


def crop(picture: Picture, share: float) -> Picture:
    """Keep the middle, this share of the area."""
    width, height = (max(1, round(side * share**0.5)) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def scale(picture: Picture, factor: float) -> Picture:
    """Resize both sides."""
    width, height = (max(1, round(side * factor)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def jpeg(picture: Picture, quality: int) -> Picture:
    """Compress and decode again."""
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


def blur(picture: Picture) -> Picture:
    """A Gaussian of a hundredth of the longer side."""
    return picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 100))


def brightness(picture: Picture, factor: float) -> Picture:
    """Multiply every value."""
    return ImageEnhance.Brightness(picture).enhance(factor)


def rotate(picture: Picture, degrees: int) -> Picture:
    """Turn; what comes into view is gray."""
    gray = (128, 128, 128)
    return picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=gray)


def border(picture: Picture) -> Picture:
    """A white frame, a tenth of the shorter side wide."""
    return ImageOps.expand(picture, max(1, min(picture.size) // 10), (255, 255, 255))


def watermark(picture: Picture) -> Picture:
    """White letters, half transparent, three times across the picture."""
    over = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(over)
    for share in (0.15, 0.45, 0.75):
        place, size = (picture.width * 0.08, picture.height * share), max(6.0, picture.width / 9)
        draw.text(place, "lookalike", fill=(255, 255, 255, 128), font_size=size)
    return Image.alpha_composite(picture.convert("RGBA"), over).convert("RGB")


def overlay(picture: Picture) -> Picture:
    """A line of white text on a dark bar across the lower part."""
    changed = picture.copy()
    draw = ImageDraw.Draw(changed)
    top, bottom = int(picture.height * 0.78), int(picture.height * 0.92)
    draw.rectangle((0, top, picture.width, bottom), fill=(20, 20, 20))
    words = "lookalike: image by image search "
    size = max(6.0, (bottom - top) * 0.7)
    draw.text((picture.width * 0.03, top), words * 3, fill=(255, 255, 255), font_size=size)
    return changed


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "crop to 80 %": partial(crop, share=0.8),
    "crop to 50 %": partial(crop, share=0.5),
    "half the size": partial(scale, factor=0.5),
    "JPEG 30": partial(jpeg, quality=30),
    "blur": blur,
    "brightness -40 %": partial(brightness, factor=0.6),
    "brightness +40 %": partial(brightness, factor=1.4),
    "rotation 5°": partial(rotate, degrees=5),
    "rotation 90°": partial(rotate, degrees=90),
    "flip": ImageOps.mirror,
    "border": border,
    "text": overlay,
}
"""By what the table calls them."""


def changed(pixels: bytes, size: tuple[int, int], change: Callable[[Picture], Picture]) -> bytes:
    """Change RGB pixels of a picture of (width, height): a PNG, without loss."""
    data = io.BytesIO()
    change(Image.frombytes("RGB", size, pixels)).save(data, "PNG", compress_level=1)
    return data.getvalue()
