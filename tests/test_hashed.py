from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lookalike.reconcile.hashed import HashFilter, content_hashes, content_partitions


def digests(numbers: list[int]) -> pa.Array:
    return pa.array([hashlib.sha256(b"%d" % n).digest() for n in numbers], pa.binary(32))


@given(st.lists(st.integers(0, 10**6), max_size=300), st.sampled_from([1, 2, 8]))
def test_a_filter_made_in_parts_is_the_filter(numbers: list[int], count: int) -> None:
    """Each partition of contents remembers its own; together they are what one would remember."""
    column = digests(numbers)
    hashes, which = content_hashes(column), content_partitions(column, count)
    whole, put_together = HashFilter(len(numbers)), HashFilter(len(numbers))
    whole.add(hashes)
    for number in range(count):
        own = HashFilter(len(numbers))
        own.add(hashes[which == number])
        put_together.part(number, count)[:] = own.part(number, count)
    np.testing.assert_array_equal(put_together.data, whole.data)
    assert HashFilter(data=whole.data).among(hashes).all()
    assert len(whole.data) >= max(1 << 13, 16 * len(numbers))


def test_little_else_is_let_in_and_memory_is_bounded() -> None:
    found = HashFilter(20_000)
    found.add(content_hashes(digests(list(range(20_000)))))
    others = found.among(content_hashes(digests(list(range(10**6, 10**6 + 20_000)))))
    assert others.mean() < 1 / 100
    assert len(HashFilter(10**9).data) == 64 << 20
