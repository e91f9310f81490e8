"""Types that hold what several sources give."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest

from lookalike.store.columns import cast, common_type, fit


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.binary(), pa.string(), pa.string()),
        (pa.binary(16), pa.string(), pa.string()),
        (pa.binary(), pa.null(), pa.binary()),
        (pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ns")),
        (
            pa.timestamp("us", "Europe/Berlin"),
            pa.timestamp("ns", "+01:00"),
            pa.timestamp("ns", "UTC"),
        ),
        (pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.string()),
    ],
)
def test_common_types(one: pa.DataType, other: pa.DataType, expected: pa.DataType) -> None:
    assert common_type(one, other) == common_type(other, one) == expected


def test_bytes_become_digits_where_others_have_text() -> None:
    assert cast(pa.array([b"cat", b"\xff", None]), pa.string()).to_pylist() == [
        "636174",
        "ff",
        None,
    ]
    assert cast(pa.array([b"ab"], pa.binary(2)), pa.string()).to_pylist() == ["6162"]


def test_times_beyond_nanoseconds_are_none_never_others() -> None:
    far, near = datetime.datetime(9999, 12, 31), datetime.datetime(2024, 1, 1)
    found = cast(pa.array([far, near], pa.timestamp("us")), pa.timestamp("ns"))
    assert found.cast(pa.string()).to_pylist() == [None, "2024-01-01 00:00:00.000000000"]
    with pytest.raises(ValueError, match="is no timestamp"):
        fit(far, pa.timestamp("ns"))


def test_instants_stay_where_zones_differ() -> None:
    berlin = pa.array([datetime.datetime(2024, 1, 1)], pa.timestamp("us", "Europe/Berlin"))
    found = cast(berlin, pa.timestamp("us", "UTC"))
    assert found.to_pylist() == [datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)]


def test_lists_become_text_as_python_writes_them() -> None:
    assert cast(pa.array([[1], None]), pa.string()).to_pylist() == ["[1]", None]
