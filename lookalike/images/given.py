"""Pictures that come as pixels, not as a file: Pillow images and arrays, as a file would look."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lookalike.errors import one_line
from lookalike.images.limits import ImageLimits
from lookalike.images.openers import place
from lookalike.images.pixels import Pixels, simplify, to_array, upright
from lookalike.images.quiet_pillow import quiet_pillow
from lookalike.images.rejections import Rejected

_ROUNDING = 1e-6  # beyond 0 and 1, as resizing in floats leaves
_SHAPES = "(h, w), (h, w, 1), (h, w, 3) for RGB or (h, w, 4) for RGBA"


def pixels_of_image(image: Image.Image) -> Pixels:
    """The (h, w, 3) uint8 pixels of a Pillow image, made as those of its file are.

    It is turned as its EXIF says, its colours go to sRGB by its ICC profile, and its alpha is
    blended. The image itself is loaded, and else stays as it is.

    Raises:
        ValueError: It has no pixels or too many, or they cannot be had.
    """
    width, height = image.size
    if not width or not height:
        raise ValueError(f"the Pillow image has {width} x {height} pixels")
    with quiet_pillow():
        try:
            ImageLimits().check_pixels(width, height)
            copy = image.copy()  # what follows takes the transparent colour out of its info
            simple, to_srgb = simplify(copy, "", b"", None)
            pixels = to_array(to_srgb(simple) if to_srgb else simple)
            return upright(pixels, place(copy, "", b"").orientation)
        except Rejected as error:
            raise ValueError(str(error)) from error
        except Exception as error:  # its file may be damaged, closed or gone
            what = f"the Pillow image (mode {image.mode}) cannot be used: {one_line(error)}"
            raise ValueError(what) from error


def pixels_of_array(array: npt.NDArray[Any]) -> Pixels:
    """The (h, w, 3) uint8 pixels of an array: gray, RGB or RGBA; uint8, or floats from 0 to 1.

    Raises:
        ValueError: It is of another shape or type, or has other values.
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        raise _no_picture(array, f"of shape {array.shape}")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # not a number is no such value
            raise _no_picture(array, f"with values from {low:g} to {high:g}")
        array = np.rint(np.clip(array.astype(np.float64, copy=False), 0, 1) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise _no_picture(array, f"of shape {array.shape}")
    array = np.ascontiguousarray(array)
    if channels == 4:
        return pixels_of_image(Image.fromarray(array))
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return array


def _no_picture(array: npt.NDArray[Any], what: str) -> ValueError:
    return ValueError(
        f"an array must be uint8 or floats from 0 to 1, of shape {_SHAPES}; got {array.dtype} "
        f"{what}"
    )
