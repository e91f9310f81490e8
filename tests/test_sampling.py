from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike import sampling
from lookalike.sampling import sample_ids, sample_key

Ids = npt.NDArray[np.int64]
IDS = st.lists(st.integers(0, 2**40), unique=True, max_size=80)


def array(ids: list[int]) -> Ids:
    return np.array(ids, dtype=np.int64)


def smallest(ids: list[int], count: int, seed: int) -> list[int]:
    """By the definition: sort by key, take the first."""
    keys = dict(zip(ids, sample_key(seed, array(ids)).tolist(), strict=True))
    return sorted(sorted(ids, key=lambda i: keys[i])[:count])


@given(ids=IDS, count=st.integers(0, 90), seed=st.integers(0, 5), cuts=st.lists(st.integers(0, 80)))
def test_the_ids_of_smallest_key_however_they_arrive(
    ids: list[int], count: int, seed: int, cuts: list[int]
) -> None:
    blocks = np.split(array(ids), sorted(cuts))
    expected = smallest(ids, count, seed)
    assert sample_ids(blocks, count, seed).tolist() == expected
    assert sample_ids(reversed(blocks), count, seed).tolist() == expected


@given(ids=IDS, count=st.integers(0, 40), limit=st.integers(0, 2**64 - 1))
def test_ids_of_a_larger_key_are_as_if_they_were_not_there(
    ids: list[int], count: int, limit: int
) -> None:
    keys = sample_key(1, array(ids)).tolist()
    kept = [one for one, key in zip(ids, keys, strict=True) if key <= limit]
    found = sample_ids(np.split(array(ids), [5, 9]), count, 1, limit)
    assert found.tolist() == smallest(kept, count, 1)


def test_nothing_to_sample_from() -> None:
    assert sample_ids([], 5, 0).tolist() == []
    assert sample_ids([array([])], 5, 0).dtype == np.int64


def test_a_larger_sample_holds_the_smaller_one() -> None:
    ids = np.arange(10_000, dtype=np.int64)
    small, large = (set(sample_ids([ids], count, 7).tolist()) for count in (100, 1000))
    assert small < large


def test_sorted_classes_are_drawn_in_proportion() -> None:
    """Ids as of 100 files of 500 rows, of which the first half is one class."""
    ids = np.concatenate([(file << 32) + np.arange(500, dtype=np.int64) for file in range(100)])
    for seed in range(5):
        drawn = sample_ids(np.split(ids, 100), 5000, seed)
        per_file = np.bincount(drawn >> 32, minlength=100)
        # hypergeometric, 50 expected per file, standard deviation 6.7 (of the halves: 34)
        assert 20 < per_file.min() <= per_file.max() < 85
        assert abs(per_file[:50].sum() - 2500) < 170
        chi_square = ((per_file - 50) ** 2 / 45).sum()  # 99 degrees of freedom
        assert 55 < chi_square < 160


def test_seeds_give_independent_samples() -> None:
    ids = np.arange(100_000, dtype=np.int64)
    one, other = (set(sample_ids([ids], 10_000, seed).tolist()) for seed in (0, 1))
    assert abs(len(one & other) - 1000) < 150  # standard deviation 28


def test_a_long_stream_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most ids end at the largest key kept so far."""
    held: list[int] = []
    smallest_of = sampling._smallest

    def watched(parts: list[tuple[Ids, sampling.Keys]], count: int) -> tuple[Ids, sampling.Keys]:
        held.append(sum(len(ids) for ids, _ in parts))
        return smallest_of(parts, count)

    monkeypatch.setattr(sampling, "_AT_LEAST", 0)
    monkeypatch.setattr(sampling, "_smallest", watched)
    ids = np.arange(100_000, dtype=np.int64)
    found = sample_ids(np.split(ids, 200), 1000, 2)
    assert found.tolist() == smallest(ids.tolist(), 1000, 2)
    assert max(held) <= 2 * 1000 + 500
    assert len(held) < 10


def test_sample_key_is_fixed():
    # splitmix64 finaliser, computed apart with Python's integers.
    def mix(x):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    ids = np.array([0, 1, 5 << 32 | 7, 2**63 - 1])
    keys = sample_key(42, ids)
    assert keys.dtype == np.uint64
    assert keys.tolist() == [mix((mix(42) + int(i)) % 2**64) for i in ids]


def test_sample_is_uniform_over_files_and_depends_on_the_seed():
    ids = (np.arange(10)[:, None] << 32 | np.arange(2000)).ravel()
    first = ids[np.argsort(sample_key(0, ids))[:4000]]
    counts = np.bincount(first >> 32, minlength=10)
    assert np.abs(counts - 400).max() < 100  # 5.6 standard deviations of 18
    second = ids[np.argsort(sample_key(1, ids))[:4000]]
    assert 600 < len(np.intersect1d(first, second)) < 1000  # 800 expected
