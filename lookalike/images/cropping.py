"""Parts of pictures, as a person marks them: a rectangle in pixels, or in shares of the sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError

_ROUNDING = 1e-6  # of shares, as a page or a program computes them


class CropError(ValueError):
    """A rectangle leaves the picture."""


@dataclass(frozen=True)
class Crop:
    """A rectangle of the upright picture; shares of its sides where no number is above 1.

    Attributes:
        x: Of its left edge, from the left.
        y: Of its upper edge, from above.
        width: How wide.
        height: How high.
    """

    x: float
    y: float
    width: float
    height: float

    @property
    def in_shares(self) -> bool:
        """Whether the numbers are shares of the picture's sides, else pixels."""
        return max(self.x, self.y, self.width, self.height) <= 1

    def leaves(self, width: float, height: float) -> bool:
        """Whether it ends outside a picture of that size."""
        right, bottom = self.x + self.width, self.y + self.height
        return right > width + _ROUNDING or bottom > height + _ROUNDING

    def __str__(self) -> str:
        """As on the command line."""
        return ",".join(f"{side:.12g}" for side in (self.x, self.y, self.width, self.height))

    def of(
        self, pixels: npt.NDArray[np.uint8], size: tuple[int, int] | None = None
    ) -> npt.NDArray[np.uint8]:
        """That part of an upright picture (h, w, 3), contiguous; of one pixel at least.

        Args:
            pixels: The picture.
            size: (width, height) that it has in its file, where it was reduced since.

        Raises:
            CropError: The rectangle leaves the picture.
        """
        high, wide = pixels.shape[:2]
        width, height = (1, 1) if self.in_shares else (size or (wide, high))
        if self.leaves(width, height):
            raise CropError(
                f"the part {self} leaves {width} x {height} pixels; x + w and y + h end within it"
            )
        left, right = _span(self.x / width, self.width / width, wide)
        top, bottom = _span(self.y / height, self.height / height, high)
        return np.ascontiguousarray(pixels[top:bottom, left:right])


def _span(start: float, length: float, side: int) -> tuple[int, int]:
    """The pixels [first, last) that a part of a side touches."""
    first = min(math.floor(start * side + _ROUNDING), side - 1)
    return first, min(max(math.ceil((start + length) * side - _ROUNDING), first + 1), side)


def asked_crop(crop: Any) -> Crop | None:
    """The rectangle that was asked for, of four numbers or a text of them; None of None.

    Raises:
        RequestError: It is something else, or no rectangle.
    """
    if crop is None or isinstance(crop, Crop):
        return crop
    try:
        sides = [*map(float, crop.split(",") if isinstance(crop, str) else crop)]
    except (TypeError, ValueError):
        sides = []
    right = len(sides) == 4 and all(map(math.isfinite, sides))
    if not right or min(sides[:2]) < 0 or min(sides[2:]) <= 0:
        raise RequestError(
            "crop: needs x, y, w, h of the upright picture, in pixels or in shares of its sides, "
            f"from 0 on and w, h above 0; got {_text(crop)}"
        )
    found = Crop(*sides)
    if found.in_shares and found.leaves(1, 1):
        raise RequestError(
            f"crop: {found} are shares of the picture's sides, as none is above 1, and leave it; "
            "x + w and y + h are 1 at most"
        )
    return found


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return repr(tuple(value))[:80]
    return repr(value)[:80]
