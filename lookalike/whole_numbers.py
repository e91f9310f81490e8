"""Whole numbers as callers give them: Python's or NumPy's, and never a truth value."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from lookalike.errors import RequestError


def whole_number(name: str, value: SupportsIndex) -> int:
    """A whole number from 1, of Python or NumPy.

    Raises:
        RequestError: It is something else.
    """
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise RequestError(f"{name}: needs a whole number from 1, got {value!r:.80}")
    return number
