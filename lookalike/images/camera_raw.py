"""Camera raw files, developed by LibRaw: the only module that imports rawpy, which is optional."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator

import numpy as np
import rawpy
from numpy.typing import NDArray

from lookalike.images.limits import ImageLimits
from lookalike.images.rejections import Rejected

# What LibRaw allocates beside the file, in bytes for each of the sensor's values, by whether half
# the size is developed: 13 and 5 as measured, and room for other sensors' interpolation.
_BYTES_PER_VALUE = {False: 20, True: 8}

_lock = threading.Lock()  # standard error is the whole process's

_REASONS = {
    rawpy.LibRawFileUnsupportedError: "unsupported_format",
    rawpy.LibRawNotImplementedError: "unsupported_format",
    rawpy.LibRawIOError: "truncated",  # all bytes are in memory: it asked for more than there are
    rawpy.LibRawUnsufficientMemoryError: "out_of_memory",
    MemoryError: "out_of_memory",
}


def develop(
    data: bytes, limits: ImageLimits, min_side: int | None
) -> tuple[NDArray[np.uint8], int, int]:
    """Turn a camera's raw data into a picture with its white balance, upright.

    Args:
        data: the whole file.
        limits: what it may cost.
        min_side: where half the size leaves both sides at least twice this, half is developed,
            which needs no interpolation.

    Returns:
        (h, w, 3) uint8, sRGB; and the full width and height, upright.

    Raises:
        Rejected: the limits forbid it, or LibRaw does not know the camera or finds damage.
    """
    try:
        with _lock, _silence(), rawpy.imread(io.BytesIO(data)) as raw:
            sizes = raw.sizes
            width, height = int(sizes.width), int(sizes.height)
            sensor = int(sizes.raw_width), int(sizes.raw_height)
            half = min_side is not None and min(width, height) // 2 >= 2 * min_side
            limits.check_pixels(*sensor)
            need = sensor[0] * sensor[1] * _BYTES_PER_VALUE[half] + len(data)
            limits.check_memory(need, f"{sensor[0]} x {sensor[1]} sensor values")
            pixels = raw.postprocess(use_camera_wb=True, half_size=half, output_bps=8)
            if sizes.flip & 4:  # LibRaw's code for a quarter turn
                width, height = height, width
    except Rejected:
        raise
    except Exception as error:  # rawpy raises more than LibRaw's errors over damaged files
        reason = next((r for kind, r in _REASONS.items() if isinstance(error, kind)), "corrupt")
        raise Rejected(reason, f"camera raw: {_words(error)}") from error
    if pixels.ndim == 2 or pixels.shape[2] == 1:  # a sensor without colours
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    return pixels, width, height


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep LibRaw from writing about damaged files to standard error, which nothing else stops."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _words(error: Exception) -> str:
    """LibRaw's message; it comes as bytes."""
    first = error.args[0] if error.args else ""
    words = first.decode(errors="replace") if isinstance(first, bytes) else str(first)
    return words or type(error).__name__
