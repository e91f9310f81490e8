"""The plain way to decode that ours is compared with."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def pillow(data: bytes, size: tuple[int, int]) -> Any:
    """Open, convert, resize, as samples have it: (height, width, 3) uint8."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))
