"""Cells of metadata columns as Python values that lose nothing, and as JSON and text show them.

Python's own times count microseconds and end with the year 9999. What they cannot hold is an
`Exact`: the number that Arrow stores, whose text is ISO's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa

_SHOWN_BYTES = 32  # of a binary value, to a person
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class Exact(int):
    """A time or duration that Python's types cannot hold: the number that Arrow stores for it.

    Of a timestamp those are the units since 1970 in UTC, of a time of day those since midnight.

    Attributes:
        kind: The Arrow type, which says the unit and the time zone.
    """

    kind: pa.DataType

    def __new__(cls, value: int, kind: pa.DataType | None = None) -> Exact:
        """The number `value` of a column of the type `kind`, by default nanoseconds since 1970."""
        made = super().__new__(cls, value)
        made.kind = kind or pa.timestamp("ns")
        return made

    def __str__(self) -> str:
        """As ISO 8601 has it: 2024-12-31T23:59:59.123456789+01:00; seconds, of a duration."""
        if pa.types.is_duration(self.kind):
            return str(self.seconds)
        text = str(pa.scalar(int(self), self.kind).cast(pa.string()).as_py())
        if not text[0].isdigit():  # Arrow's own text that the calendar does not go so far
            return f"{int(self)} {getattr(self.kind, 'unit', 'days')}"
        text = text.replace(" ", "T")
        zoned = pa.types.is_timestamp(self.kind) and self.kind.tz and not text.endswith("Z")
        return f"{text[:-2]}:{text[-2:]}" if zoned else text  # Arrow writes +0100

    def __repr__(self) -> str:
        return f"Exact({str(self)!r}, {str(self.kind)!r})"

    @property
    def seconds(self) -> int | float:
        """The number in seconds; whole ones as an integer."""
        return _number(Fraction(int(self), _PER_SECOND[self.kind.unit]))


def to_rows(table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a table as Python values; like `to_pylist`, and exact."""
    columns = [cells(column) for column in table.columns]
    return [
        dict(zip(table.schema.names, row, strict=True))
        for row in (zip(*columns, strict=True) if columns else [()] * table.num_rows)
    ]


def cells(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of an array: all of nanoseconds as `Exact`, others where Python has no such."""
    if isinstance(array, pa.ChunkedArray):
        return [value for chunk in array.chunks for value in cells(chunk)]
    kind = array.type
    if not has_times(kind):
        return list(array.to_pylist())
    if pa.types.is_dictionary(kind):
        return cells(array.dictionary_decode())
    if pa.types.is_struct(kind):
        fields = [cells(array.field(i)) for i in range(kind.num_fields)]
        names = [kind.field(i).name for i in range(kind.num_fields)]
        there = array.is_valid().to_pylist()
        return [
            dict(zip(names, (values[row] for values in fields), strict=True)) if valid else None
            for row, valid in enumerate(there)
        ]
    if pa.types.is_nested(kind):
        return _lists(array)
    if getattr(kind, "unit", "") == "ns":
        numbers = array.view(pa.int64()).to_pylist()
        return [None if number is None else Exact(number, kind) for number in numbers]
    try:
        return list(array.to_pylist())
    except (ValueError, OverflowError):  # beyond the year 9999, or before the first
        return [_cell(scalar) for scalar in array]


def _lists(array: pa.Array) -> list[Any]:
    """Lists of any kind, and maps as lists of pairs."""
    lists = [cells(scalar.values) if scalar.is_valid else None for scalar in array]
    if not pa.types.is_map(array.type):
        return lists
    return [pairs and [tuple(pair.values()) for pair in pairs] for pairs in lists]


def _cell(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return Exact(scalar.value, scalar.type)


def has_times(kind: pa.DataType) -> bool:
    """Whether values of a type are times, or hold some: of those `to_pylist` may lose a part."""
    if pa.types.is_dictionary(kind):
        return has_times(kind.value_type)
    if pa.types.is_nested(kind):
        return any(has_times(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_temporal(kind)) and not pa.types.is_interval(kind)


# --- to show --------------------------------------------------------------------------------------


def json_value(value: Any) -> Any:
    """A value as JSON has it, nothing rounded.

    Times are ISO 8601 texts, durations numbers of seconds, decimals texts, bytes hexadecimal
    digits, maps lists of pairs; a number that is not finite is null.
    """
    match value:
        case Exact():
            return value.seconds if pa.types.is_duration(value.kind) else str(value)
        case None | bool() | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return _number(Fraction(value // timedelta(microseconds=1), 10**6))
        case bytes() | bytearray() | memoryview():
            return value.hex()
        case Mapping():
            return {str(key): json_value(inner) for key, inner in value.items()}
        case list() | tuple():
            return [json_value(inner) for inner in value]
        case Decimal():
            return format(value, "f") if value.is_finite() else None
    return str(value)


def as_text(value: Any) -> str:
    """A value in a column of text, where sources do not agree on a type."""
    if isinstance(value, (Exact, bytes, date, time, timedelta)):
        value = json_value(value)
    return str(value)


def shown(value: Any) -> str:
    """A value to a person: as JSON has it, long bytes cut short."""
    if isinstance(value, bytes) and len(value) > _SHOWN_BYTES:
        return f"{value[:_SHOWN_BYTES].hex()}… ({len(value):,} bytes)"
    plain = json_value(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _number(exact: Fraction) -> int | float:
    return exact.numerator if exact.denominator == 1 else float(exact)
