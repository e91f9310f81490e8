"""Pictures to sRGB, by their embedded profile (ICC) or by what their file says of colour."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from lookalike.images.colour_spaces import described, profile

Transform = Callable[[Image.Image], Image.Image]

_MAX_PROFILE = 4 << 20
_SPACES = {"RGB": b"RGB ", "CMYK": b"CMYK", "L": b"GRAY"}


def to_srgb(image: Image.Image, mode: str, kind: str, data: bytes) -> Transform | None:
    """The function that takes pictures of this mode from an image's colour space to sRGB.

    Args:
        image: whose `info` may hold a profile.
        mode: "RGB", "CMYK" or "L": what will be transformed.
        kind: the format.
        data: the file, which may describe its colours by numbers.

    Returns:
        The function, to RGB; None where there is neither a profile of this space nor another
        description, where it is damaged (no reason to lose the picture), or where it would change
        nothing worth the time.
    """
    icc = image.info.get("icc_profile")
    has_profile = isinstance(icc, bytes) and len(icc) > 0
    if mode != "CMYK" and (space := described(kind, data, has_profile)):
        if mode == "RGB":
            return _transform(profile(space), "RGB")
        of_rgb = _transform(profile(space.of_gray()), "RGB")
        return of_rgb and (lambda gray: of_rgb(gray.convert("RGB")))
    if not isinstance(icc, bytes) or not 128 <= len(icc) <= _MAX_PROFILE:
        return None
    return _transform(icc, mode) if icc[16:20] == _SPACES[mode] else None


@lru_cache(maxsize=32)
def _transform(icc: bytes, mode: str) -> Transform | None:
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode != "CMYK" and _changes_nothing(transform, mode):
        return None
    return transform.apply


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether no colour moves by more than 2 of 255: true of the many names and forms of sRGB."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=3).reshape(-1, levels.size, 3)
    sample = Image.fromarray(cube).convert(mode)
    before, after = np.asarray(sample.convert("RGB")), np.asarray(transform.apply(sample))
    return int(np.abs(before.astype(int) - after.astype(int)).max()) <= 2
