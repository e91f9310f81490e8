"""Pillow and its C libraries, kept from talking about damaged files: the ledger says it already.

Warning filters, Pillow's limit of pixels, its leave to decode a file in part and its choice of TIFF
decoders belong to the whole process, so they are set here, for as long as somebody decodes.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageFile, TiffImagePlugin, _imaging

# Some damage to TIFF is reported by logging and, in C, on standard error; the reason is in the
# ledger already. The symbol is found through the libraries that Pillow's own is linked with.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
with contextlib.suppress(AttributeError, OSError):
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

_turn = threading.Condition()
_users = 0
_settings = (False, False)
_before: Any = None


@contextlib.contextmanager
def quiet_pillow(partial: bool = False, libtiff: bool = False) -> Iterator[None]:
    """Silence Pillow's warnings about damaged metadata, and lift its limit of pixels, for ours.

    Bundles may run as threads: the first to enter sets what is shared, the last to leave restores
    what was there. Those that decode with other settings wait. Warnings of other modules pass.

    Args:
        partial: let Pillow return pictures whose end is missing (`LOAD_TRUNCATED_IMAGES`).
        libtiff: have uncompressed TIFF decoded by libtiff too (`READ_LIBTIFF`).
    """
    global _users, _settings, _before
    with _turn:
        _turn.wait_for(lambda: _users == 0 or _settings == (partial, libtiff))
        if _users == 0:
            filters = warnings.catch_warnings()
            filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _before = (
                filters,
                Image.MAX_IMAGE_PIXELS,
                ImageFile.LOAD_TRUNCATED_IMAGES,
                TiffImagePlugin.READ_LIBTIFF,
            )
            Image.MAX_IMAGE_PIXELS = None
            _settings = (partial, libtiff)
            ImageFile.LOAD_TRUNCATED_IMAGES, TiffImagePlugin.READ_LIBTIFF = _settings
        _users += 1
    try:
        yield
    finally:
        with _turn:
            _users -= 1
            if _users == 0:
                (
                    filters,
                    Image.MAX_IMAGE_PIXELS,
                    ImageFile.LOAD_TRUNCATED_IMAGES,
                    TiffImagePlugin.READ_LIBTIFF,
                ) = _before
                filters.__exit__(None, None, None)
                _turn.notify_all()
