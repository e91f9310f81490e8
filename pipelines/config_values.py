"""Checks of one value of a config.

Of a wrong value each raises a RequestError, which names the key, the rule and the value.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from typing import Any

from lookalike.errors import RequestError

_SIZES = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _SIZES |= {f"{_letter}B": 1000**_power, f"{_letter}IB": 1024**_power}


def known_keys(key: str, raw: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Refuse a key that is none of these names."""
    for name in raw:
        if name not in names:
            path = f"{key}.{name}" if key else str(name)
            close = difflib.get_close_matches(str(name), names, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise RequestError(f"{path}: unknown key; {hint}known here: {', '.join(names)}")


def mapping(key: str, value: Any) -> Mapping[str, Any]:
    """A mapping of keys to values; an empty one where nothing is given."""
    if value is None and key != "the config":
        return {}
    if not isinstance(value, dict):
        raise RequestError(f"{key}: needs a mapping of keys to values, got {shown(value)}")
    return value


def number(
    key: str, value: Any, low: float, high: float = sys.float_info.max, above: bool = False
) -> float:
    """A finite number within its limits, of which the lower one may be outside."""
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    if not fine or not (low < value if above else low <= value) or not value <= high:
        bound = f"above {low:g}" if above else f"from {low:g}"
        until = f" to {high:g}" if high != sys.float_info.max else ", and finite"
        raise RequestError(f"{key}: needs a number {bound}{until}, got {shown(value)}")
    return float(value)


def integer(key: str, value: Any, low: int) -> int:
    """A whole number from `low` on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise RequestError(f"{key}: needs a whole number from {low}, got {shown(value)}")
    return value


def positive(key: str, value: Any) -> int:
    """A whole number from 1 on."""
    return integer(key, value, low=1)


def share(key: str, value: Any) -> float:
    """A number from 0 to 1."""
    return number(key, value, low=0, high=1)


def one_of(key: str, value: Any, names: tuple[str, ...]) -> str:
    """One of these names."""
    if value not in names:
        raise RequestError(f"{key}: needs one of {', '.join(names)}, got {shown(value)}")
    return str(value)


def text(key: str, value: Any) -> str | None:
    """A text, or nothing."""
    if value is not None and not isinstance(value, str):
        raise RequestError(f"{key}: needs a text, got {shown(value)}")
    return value


def pair_of_sides(key: str, value: Any) -> tuple[int, int] | None:
    """Height and width of pictures, from 8 on: two numbers, or one for both; or nothing."""
    if value is None:
        return None
    pair = [value, value] if isinstance(value, int) else value
    if not isinstance(pair, list) or len(pair) != 2:
        raise RequestError(f"{key}: needs [height, width] or one number, got {shown(value)}")
    height, width = (integer(key, side, low=8) for side in pair)
    return height, width


def byte_count(key: str, value: Any) -> int:
    """Bytes, at least one, of a size such as 4GiB."""
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value))
    if isinstance(value, bool) or not match or match[2].upper() not in _SIZES:
        raise RequestError(f"{key}: needs a size such as 4GiB or 500MB, got {shown(value)}")
    size = int(float(match[1]) * _SIZES[match[2].upper()])
    if size < 1:
        raise RequestError(f"{key}: needs at least one byte, got {shown(value)}")
    return size


def shown(value: Any) -> str:
    """A value as an error shows it, cut where it is long."""
    form = repr(value)
    return form if len(form) < 80 else form[:79] + "…"
