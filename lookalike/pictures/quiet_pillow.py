"""Pillow and its C libraries, kept from talking about damaged files: the ledger says it already.

Warning filters and Pillow's leave to decode a file in part belong to the whole process, so both are
set here, for as long as somebody decodes.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import ImageFile, _imaging

# Some damage to TIFF is reported by logging and, in C, on standard error; the reason is in the
# ledger already. The symbol is found through the libraries that Pillow's own is linked with.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
with contextlib.suppress(AttributeError, OSError):
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

_turn = threading.Condition()
_users = 0
_partial = False
_before: Any = None


@contextlib.contextmanager
def quiet_pillow(partial: bool = False) -> Iterator[None]:
    """Silence Pillow's warnings about damaged metadata and large images while decoding.

    Bundles may run as threads: the first to enter sets what is shared, the last to leave restores
    what was there. Those that decode in part wait for those that do not, and the other way round.
    Warnings of other modules pass.

    Args:
        partial: let Pillow return pictures whose end is missing (`LOAD_TRUNCATED_IMAGES`).
    """
    global _users, _partial, _before
    with _turn:
        _turn.wait_for(lambda: _users == 0 or _partial == partial)
        if _users == 0:
            filters = warnings.catch_warnings()
            filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _before = filters, ImageFile.LOAD_TRUNCATED_IMAGES
            _partial = ImageFile.LOAD_TRUNCATED_IMAGES = partial
        _users += 1
    try:
        yield
    finally:
        with _turn:
            _users -= 1
            if _users == 0:
                filters, ImageFile.LOAD_TRUNCATED_IMAGES = _before
                filters.__exit__(None, None, None)
                _turn.notify_all()
