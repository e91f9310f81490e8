"""Pillow and its C libraries, kept from talking about damaged files: the ledger says it already."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import _imaging

# Some damage to TIFF is reported by logging and, in C, on standard error; the reason is in the
# ledger already. The symbol is found through the libraries that Pillow's own is linked with.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
with contextlib.suppress(AttributeError, OSError):
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

_lock = threading.Lock()
_users = 0
_filters: Any = None


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about damaged metadata and large images while decoding.

    Filters belong to the whole process, and bundles run as threads: the first to enter sets the
    filter, the last to leave restores what was there. Warnings of other modules pass.
    """
    global _users, _filters
    with _lock:
        if _users == 0:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _filters.__exit__(None, None, None)
