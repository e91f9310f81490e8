from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.store.partitions import partition_count, uri_hashes, uri_partitions

SCHEMA = pa.schema([("uri", pa.string()), ("n", pa.int64())])
NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=50)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(names=NAMES, cut=st.integers(0, 50), bits=st.integers(0, 12))
def test_names_fall_to_parts_by_the_leading_bits_of_their_crc(
    names: list[str], cut: int, bits: int
) -> None:
    column = pa.chunked_array([names[:cut], names[cut:]], pa.string())
    hashes = [zlib.crc32(name.encode()) for name in names]
    assert uri_hashes(column).tolist() == hashes
    assert uri_hashes(column).dtype == np.uint32
    expected = [value * 2**bits >> 32 for value in hashes]
    assert uri_partitions(column, 2**bits).tolist() == expected
    assert uri_partitions(column.combine_chunks(), 2**bits).tolist() == expected
    # twice as many parts are each a half of one
    assert [part // 2 for part in uri_partitions(column, 2 ** (bits + 1)).tolist()] == expected


@pytest.mark.parametrize(
    ("rows", "size", "count"),
    [
        (0, 0, 1),
        (2**19, 0, 1),
        (2**19 + 1, 0, 2),
        (3 * 2**19, 0, 4),
        (10**8, 0, 256),
        (5, 2**28, 1),
        (5, 2**28 + 1, 2),
        (2**21, 2**33, 32),
    ],
)
def test_partitions_are_a_power_of_two_and_fit_memory(rows: int, size: int, count: int) -> None:
    assert partition_count(rows, size) == count
