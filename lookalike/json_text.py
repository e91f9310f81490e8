"""JSON that every parser reads: the one way in which anything here becomes JSON.

RFC 8259 has no NaN and no infinity; Python's writer puts them down all the same, as words that
strict parsers refuse. Here they are null. A string that is no Unicode (a lone surrogate, from a
name that is no UTF-8) has an escape in its place, since no strict parser takes it either.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_json(
    value: Any, *, indent: int | None = None, ascii_only: bool = True, sort_keys: bool = False
) -> str:
    """The value as JSON.

    Args:
        value: Mappings, sequences, sets, strings, numbers (NumPy's too) and arrays, bools, None, in
            each other; anything else as its `str`.
        indent: As of `json.dumps`.
        ascii_only: Whether other characters are escaped.
        sort_keys: As of `json.dumps`.
    """
    return json.dumps(
        plain(value),
        indent=indent,
        ensure_ascii=ascii_only,
        sort_keys=sort_keys,
        allow_nan=False,
    )


def plain(value: Any) -> Any:
    """The value made of dict, list, str, int, finite float, bool and None alone."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if isinstance(value, np.floating):
        return plain(float(value))
    if isinstance(value, (np.generic, np.ndarray)):
        known = value.tolist()
        return _unicode(str(value)) if isinstance(known, np.generic) else plain(known)
    return _unicode(str(value))


def _key(key: object) -> str:
    """As `json.dumps` writes a key that is no string, but for NaN."""
    if isinstance(key, str):
        return _unicode(key)
    found = plain(key)
    return found if isinstance(found, str) else json.dumps(found)


def _unicode(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
