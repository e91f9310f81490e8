"""What a text or number of a condition means beside a column, and what is said where it cannot."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeGuard

import pyarrow as pa

from lookalike.errors import RequestError, one_line
from lookalike.store.columns import is_binary, is_text
from lookalike.store.steps import in_utc, seconds_of_day, seconds_since_1970
from lookalike.store.where import Value

_WANTED = {
    "text": "text in single quotes",
    "number": "a number",
    "boolean": "true or false",
    "time": "a date or time in single quotes",
    "clock": "a time of day in single quotes",
    "duration": "a number of seconds",
    "bytes": "hexadecimal digits in single quotes",
    "other": "only is null and is not null",
}
_DATES = "2024-12-31 or 2024-12-31T23:59:59"
_BYTES = "hexadecimal digits, two for each byte: 00ff"
_BEYOND = 400  # digits that no column holds
_COUNTED = ("time", "clock", "duration")


def family(kind: pa.DataType) -> str:
    """Columns of one family compare with the same literals, and with one another."""
    types = pa.types
    if is_text(kind):
        return "text"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_boolean(kind):
        return "boolean"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "time"
    if types.is_time(kind):
        return "clock"
    if types.is_duration(kind):
        return "duration"
    return "bytes" if is_binary(kind) else "other"


def is_counted(kind: pa.DataType) -> bool:
    """Whether a column's values are steps: compared by `exact_of`, all others by `scalar_of`."""
    return family(kind) in _COUNTED or (family(kind) == "number" and not pa.types.is_floating(kind))


def exact_of(name: str, kind: pa.DataType, value: Value) -> Fraction:
    """A literal as a number: seconds beside times and durations.

    Raises:
        RequestError: It means nothing beside that column.
    """
    of = family(kind)
    if of in ("number", "duration") and _is_number(value):
        if math.isinf(value):  # 1e999
            return Fraction(10) ** _BEYOND * (1 if value > 0 else -1)
        return Fraction(Decimal(repr(value)))  # 0.1 means a tenth
    if of == "time" and isinstance(value, str):
        return _instant(name, kind, value)
    if of == "clock" and isinstance(value, str):
        seconds = seconds_of_day(value)
        if seconds is None:
            raise _is_none(name, kind, value, "23:59 or 23:59:59.5")
        return seconds
    raise mismatch(name, kind, f"compared with {_shown(value)}")


def _instant(name: str, kind: pa.DataType, value: str) -> Fraction:
    """Seconds since 1970: in UTC beside a column with a time zone, else by the clock."""
    zone, found = getattr(kind, "tz", None), seconds_since_1970(value)
    if found is None:
        more = ", or with an offset 2024-12-31T23:59:59+01:00" if zone else ""
        raise _is_none(name, kind, value, _DATES + more)
    local, ahead = found
    if not zone:
        if ahead is not None:
            raise RequestError(
                f"column {name} ({kind}) has no time zone, and {value!r} names one; write it "
                f"without, as {_DATES}"
            )
        return local
    if ahead is not None:
        return local - ahead
    try:
        return in_utc(local, zone)
    except pa.ArrowException as error:
        raise RequestError(
            f"column {name} ({kind}): {value!r} is not one moment there; write it with an offset, "
            f"as 2024-12-31T23:59:59+01:00: {one_line(error)}"
        ) from error


def scalar_of(name: str, kind: pa.DataType, value: Value) -> Any:
    """A literal as what a column of text, bytes, floats or true and false compares with.

    Raises:
        RequestError: It means nothing beside that column.
    """
    of = family(kind)
    if of == "text" and isinstance(value, str):
        return pa.scalar(value, kind)
    if of == "boolean" and isinstance(value, bool):
        return pa.scalar(value)
    if of == "number" and _is_number(value):
        return pa.scalar(float(value), kind)  # as the column rounds it: score = 0.1 finds 0.1
    if of == "bytes" and isinstance(value, str):
        try:
            return pa.scalar(bytes.fromhex(value.replace("-", "")), kind)
        except ValueError as error:
            raise _is_none(name, kind, value, _BYTES) from error
    raise mismatch(name, kind, f"compared with {_shown(value)}")


def _is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"the text {value!r}" if isinstance(value, str) else f"the number {value}"


def _is_none(name: str, kind: pa.DataType, value: str, form: str) -> RequestError:
    return RequestError(f"column {name} holds {kind}, {value!r} is none; write it as {form}")


def mismatch(name: str, kind: pa.DataType, what: str) -> RequestError:
    """The error that a column cannot be compared with that."""
    return RequestError(
        f"column {name} ({kind}) cannot be {what}; it takes {_WANTED[family(kind)]}"
    )
