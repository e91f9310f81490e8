"""Single values of a request, each checked: of JSON, or a text that stands for the same."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from lookalike.errors import RequestError

_PICTURE = re.compile("[0-9a-f]{64}")
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_LONGEST_ID = 2**63


def asked_id(name: str, value: Any) -> int:
    """A row's id, of a number or its text.

    Raises:
        RequestError: It is none.
    """
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LONGEST_ID:
        raise RequestError(f"{name}: needs the id of a row, a whole number; got {value!r:.80}")
    return value


def asked_count(name: str, value: Any, most: int, least: int = 1) -> int:
    """A whole number within bounds, of a number or its text.

    Raises:
        RequestError: It is none.
    """
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RequestError(
            f"{name}: needs a whole number from {least} to {most:,}, got {value!r:.80}"
        )
    return value


def asked_number(name: str, value: Any) -> float:
    """A finite number, of a number or its text.

    Raises:
        RequestError: It is none.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(f"{name}: needs a finite number, got {value!r:.80}")
    return number


def asked_text(name: str, value: Any, most: int) -> str:
    """A text that is not longer than that.

    Raises:
        RequestError: It is none, or no Unicode.
    """
    if not isinstance(value, str):
        raise RequestError(f"{name}: needs a text, got {value!r:.80}")
    if len(value) > most:
        raise RequestError(f"{name}: has {len(value):,} characters, {most:,} at most are taken")
    if "\0" in value or any("\ud800" <= one <= "\udfff" for one in value):
        raise RequestError(f"{name}: holds characters that are in no text: {value!r:.80}")
    return value


def asked_picture(name: str, value: Any) -> str:
    """The sha256 of a picture that was uploaded.

    Raises:
        RequestError: It is none.
    """
    if not isinstance(value, str) or not _PICTURE.fullmatch(value):
        raise RequestError(
            f"{name}: needs the sha256 of a picture that was uploaded, 64 digits of 0-9 and a-f; "
            f"got {value!r:.80}"
        )
    return value


def asked_parameters(pairs: Iterable[tuple[str, str]], names: Sequence[str]) -> dict[str, str]:
    """The parameters of a URL, of which these are known; empty ones are left out.

    Raises:
        RequestError: There is another, or one twice.
    """
    found: dict[str, str] = {}
    for name, text in pairs:
        if name not in names:
            raise RequestError(f"there is no parameter {name!r:.80}; there are {', '.join(names)}")
        if name in found:
            raise RequestError(f"{name}: is there twice")
        if text:
            found[name] = text
    return found
