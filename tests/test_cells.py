"""Cells keep what Arrow has: against Arrow itself, and texts written out."""

from __future__ import annotations

import copy
import datetime
import json
import math
import pickle
import uuid
from decimal import Decimal

import pyarrow as pa
import pytest

from lookalike.cells import Exact, as_text, cells, json_value, shown, to_rows

NS = 1_704_067_200_123_456_789  # 2024-01-01 00:00:00.123456789 in UTC
DAY_NS = 86_399_999_999_999
BERLIN = pa.timestamp("ns", "Europe/Berlin")
NESTED = pa.struct([("at", BERLIN), ("times", pa.list_(pa.time64("ns")))])


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.timestamp("ns"), [NS, None, -1]),
        (BERLIN, [NS, None]),
        (pa.time64("ns"), [DAY_NS, 0]),
        (pa.duration("ns"), [-NS, NS]),
        (NESTED, [{"at": NS, "times": [1, None]}, None, {"at": None, "times": None}]),
        (pa.map_(pa.string(), BERLIN), [[("a", NS)], [], None, [("b", None), ("c", 1)]]),
        (pa.list_(pa.timestamp("ns"), 2), [[1, NS], None, [None, 2]]),
        (pa.large_list(pa.list_(BERLIN)), [[[NS]], None, []]),
        (pa.timestamp("us"), [2**62, 0]),
        (pa.date32(), [10**7, -(10**6), None]),
        (pa.timestamp("s", "UTC"), []),
    ],
)
def test_what_goes_in_comes_out(kind: pa.DataType, values: list[object]) -> None:
    array = pa.array(values, kind)
    for some in (array, array.slice(1), array.slice(1, 1), pa.chunked_array([array, array])):
        assert pa.array(cells(some), kind).equals(
            some.combine_chunks() if isinstance(some, pa.ChunkedArray) else some
        )
    table = pa.table({"one": array, "two": range(len(array))})
    assert pa.Table.from_pylist(to_rows(table), table.schema).equals(table)


def test_rows_of_no_columns_and_of_dictionaries() -> None:
    assert to_rows(pa.table({"x": [1, 2]}).select([])) == [{}, {}]
    words = pa.array([NS, None, NS], BERLIN).dictionary_encode()
    assert cells(words) == [NS, None, NS]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (NS, pa.timestamp("ns"), "2024-01-01T00:00:00.123456789"),
        (NS, pa.timestamp("ns", "UTC"), "2024-01-01T00:00:00.123456789Z"),
        (NS, BERLIN, "2024-01-01T01:00:00.123456789+01:00"),
        (NS, pa.timestamp("ns", "-05:30"), "2023-12-31T18:30:00.123456789-05:30"),
        (DAY_NS, pa.time64("ns"), "23:59:59.999999999"),
        (1_500_000_000, pa.duration("ns"), 1.5),
        (2_000_000_000, pa.duration("ns"), 2),
        (10**7, pa.date32(), "29349-01-26"),
    ],
)
def test_exact_values_say_what_they_are(value: int, kind: pa.DataType, text: object) -> None:
    exact = Exact(value, kind)
    assert json_value(exact) == text
    assert str(exact) == str(text)
    for other in (pickle.loads(pickle.dumps(exact)), copy.deepcopy(exact)):
        assert (other, other.kind, repr(other)) == (exact, kind, repr(exact))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**53 + 1, 2**53 + 1),
        (-(2**63), -(2**63)),
        (True, True),
        (math.nan, None),
        (-math.inf, None),
        (b"\x00\xff", "00ff"),
        (b"", ""),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E+2"), "100"),
        (datetime.datetime(2024, 1, 2, 3, 4, 5, 6), "2024-01-02T03:04:05.000006"),
        (datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc), "2024-01-02T00:00:00+00:00"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (datetime.time(12, 30), "12:30:00"),
        (datetime.timedelta(days=1, microseconds=500_000), 86_400.5),
        (datetime.timedelta(days=-1), -86_400),
        ([("a", b"x")], [["a", "78"]]),
        ({"a": {"b": [datetime.date(2024, 1, 2), None]}}, {"a": {"b": ["2024-01-02", None]}}),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ],
)
def test_json(value: object, expected: object) -> None:
    assert json_value(value) == expected
    assert json.loads(json.dumps(json_value(value), allow_nan=False)) == expected


def test_what_people_see() -> None:
    assert shown(b"a" * 40) == "61" * 32 + "… (40 bytes)"
    assert shown(b"a" * 32) == "61" * 32
    assert shown({"a": [1, None, "ü"]}) == '{"a": [1, null, "ü"]}'
    assert shown("cat") == "cat"
    assert shown(True) == "true"


def test_columns_of_text_take_everything() -> None:
    assert as_text(b"\x00\xff") == "00ff"
    assert as_text(Exact(NS, BERLIN)) == "2024-01-01T01:00:00.123456789+01:00"
    assert as_text(datetime.datetime(2024, 1, 2)) == "2024-01-02T00:00:00"
    assert as_text(1.5) == "1.5"
    assert as_text([1]) == "[1]"
