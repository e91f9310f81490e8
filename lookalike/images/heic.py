"""HEIC and HEIF files, decoded by libheif: the only module that imports pi_heif."""

from __future__ import annotations

import io
from typing import Any

import pi_heif

# One picture is wanted of each file, and a process decodes one file at a time.
pi_heif.options.DECODE_THREADS = 1
pi_heif.options.THUMBNAILS = False
pi_heif.options.DEPTH_IMAGES = False
pi_heif.options.AUX_IMAGES = False


def open_heic(stream: io.BytesIO) -> Any:
    """Open a file at its primary picture, as a Pillow image; nothing is decoded before `load`.

    libheif turns and mirrors the picture as the container says; pi_heif clears the orientation in
    the EXIF data, which only repeats that.
    """
    return pi_heif.HeifImageFile(stream)
