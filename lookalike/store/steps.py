"""Columns that count in steps (integers, decimals, dates, times) against exact numbers.

The values of such a column are whole numbers of steps; a date, for example, is a number of days. A
literal becomes an exact fraction of steps: '2024-12-31T12:00' beside a column of dates is 20088.5
days. No value equals a fraction between two steps, and "less than 20088.5" means "at most 20088".
So comparisons are exact whatever the units are, and a literal beyond the range of the type is no
error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 86_400
_DIGITS = 76  # of the widest decimals
_EPOCH = datetime(1970, 1, 1)
_CLOCK = r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?"
_TIME = re.compile(_CLOCK, re.ASCII)
_TIMESTAMP = re.compile(
    rf"(\d{{4}})-(\d\d)-(\d\d)(?:[T ]{_CLOCK}\s?(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class Steps:
    """A column as the steps that it counts.

    Attributes:
        array: Integers, or decimals with all their digits after the point.
        per_unit: Steps in a second of a time, in 1 of a number.
        low: The least step that the type holds.
        high: The greatest.
        scale: Decimal digits after the point that a step stands for.
    """

    array: Any
    per_unit: Fraction
    low: int
    high: int
    scale: int = 0

    def compare(self, operator: str, exact: Fraction) -> Any:
        """Which values fulfil `operator exact`, the number in units; null where there is none."""
        steps = exact * self.per_unit
        below = steps.numerator // steps.denominator
        if steps.denominator != 1:
            if operator in ("=", "!="):
                return self._all(operator == "!=")
            operator, below = ("<=", below) if operator in ("<", "<=") else (">=", below + 1)
        if not self.low <= below <= self.high:
            return self._all(operator == "!=" or (operator in ("<", "<=")) == (below > self.high))
        return COMPARE[operator](self.array, self._scalar(below))

    def is_in(self, exact: Iterable[Fraction]) -> Any:
        """Which values are among those; null where there is none."""
        numbers = [one * self.per_unit for one in exact]
        fitting = [
            self._scalar(one.numerator)
            for one in numbers
            if one.denominator == 1 and self.low <= one.numerator <= self.high
        ]
        found = pc.is_in(self.array, pa.array([one.as_py() for one in fitting], self.array.type))
        return pc.if_else(pc.is_valid(self.array), found, pa.scalar(None, pa.bool_()))

    def _scalar(self, step: int) -> Any:
        kind = self.array.type
        if pa.types.is_decimal(kind):
            return pa.scalar(
                Decimal((step < 0, tuple(map(int, str(abs(step)))), -self.scale)), kind
            )
        return pa.scalar(step, kind)

    def _all(self, answer: bool) -> Any:
        return pc.if_else(pc.is_valid(self.array), answer, pa.scalar(None, pa.bool_()))


def steps_of(array: Any) -> Steps:
    """The steps of an array of integers, decimals, dates, times of day, durations or timestamps."""
    kind = array.type
    if pa.types.is_decimal(kind):
        wide = array.cast(pa.decimal256(_DIGITS, kind.scale))
        most = 10 ** (_DIGITS) - 1
        return Steps(wide, Fraction(10) ** kind.scale, -most, most, kind.scale)
    if pa.types.is_integer(kind):
        signed, bits = pa.types.is_signed_integer(kind), kind.bit_width
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return Steps(array, Fraction(1), low, high)
    per_second = (
        Fraction(1, _DAY) if pa.types.is_date32(kind) else Fraction(_PER_SECOND[_unit(kind)])
    )
    numbers = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    bits = kind.bit_width - 1
    return Steps(numbers, per_second, -(1 << bits), (1 << bits) - 1)


def _unit(kind: pa.DataType) -> str:
    return "ms" if pa.types.is_date64(kind) else str(kind.unit)


def seconds_of_day(text: str) -> Fraction | None:
    """The seconds since midnight of "23:59", "23:59:59" or "23:59:59.123"; None if it is none."""
    found = _TIME.fullmatch(text.strip())
    return _clock(*found.groups()) if found else None


def seconds_since_1970(text: str) -> tuple[Fraction, Fraction | None] | None:
    """Seconds of a date or timestamp by its own clock, and how far this is ahead of UTC.

    None for an offset where it has none; None for all where the text is neither.
    """
    found = _TIMESTAMP.fullmatch(text.strip())
    if not found:
        return None
    year, month, day, *clock, offset = found.groups()
    seconds = _clock(*clock) if clock[0] else Fraction(0)
    try:
        date = datetime(int(year), int(month), int(day))
    except ValueError:
        return None
    if seconds is None:
        return None
    local = seconds + (date - _EPOCH) // timedelta(seconds=1)
    if offset is None:
        return local, None
    if offset in "Zz":
        return local, Fraction(0)
    hours, minutes = int(offset[1:3]), int(offset[3:].lstrip(":") or 0)
    if hours > 23 or minutes > 59:
        return None
    return local, Fraction((hours * 60 + minutes) * 60 * (-1 if offset[0] == "-" else 1))


def _clock(hour: str, minute: str, second: str | None, fraction: str | None) -> Fraction | None:
    if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59:
        return None
    part = Fraction(int(fraction), 10 ** len(fraction)) if fraction else Fraction(0)
    return (int(hour) * 60 + int(minute)) * 60 + int(second or 0) + part


def in_utc(local: Fraction, zone: str) -> Fraction:
    """Seconds since 1970 in UTC of what a clock in a time zone shows.

    Raises:
        pa.ArrowInvalid: The clock shows it twice or never: it was put back or forward then.
    """
    whole = local.numerator // local.denominator
    naive = pa.scalar(_EPOCH + timedelta(seconds=whole), pa.timestamp("s"))
    shown = pc.assume_timezone(naive, zone)
    return Fraction(shown.value) + (local - whole)
