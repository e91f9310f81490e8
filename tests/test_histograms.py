"""Histograms of degenerate values, from numbers to the page that shows them."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lookalike.recall.histograms import even_edges, histogram
from lookalike.report.plots import draw_histogram

HUGE = float(np.finfo(np.float64).max)
TINY = 5e-324
ONE = np.float32(1)
NEAR_ONE = np.nextafter(ONE, np.float32(0))


def drawn(found):
    return draw_histogram(found["edges"], found["counts"], "values")


@pytest.mark.parametrize(
    ("values", "bins", "counted"),
    [
        ([0.5] * 7, 1, [7]),
        ([3e38] * 2, 1, [2]),
        ([HUGE, HUGE], 1, [2]),
        ([-HUGE], 1, [1]),
        ([0.0, -0.0], 1, [2]),
        ([TINY, TINY], 1, [2]),
        ([1.0, np.nextafter(1.0, 2.0)], 1, [2]),  # no number lies between: one bin holds both
        ([1e300, np.nan, np.inf, -np.inf], 1, [1]),
        ([0.0, 10.0, 20.0, 30.0], 30, [1, *[0] * 9, 1, *[0] * 9, 1, *[0] * 8, 1]),
        (np.array([5], np.int64), 1, [1]),
        (np.array([7, 7, 7], np.uint8), 1, [3]),
        (np.array([-128, 127], np.int8), 29, [1, *[0] * 27, 1]),  # 9 whole numbers in each
    ],
)
def test_values_are_counted(values, bins, counted):
    found = histogram(values)
    assert len(found["edges"]) == bins + 1
    assert found["counts"] == counted
    assert drawn(found)


@pytest.mark.parametrize("values", [[], [np.nan], [np.inf, -np.inf], np.empty(0, np.int64)])
def test_nothing_finite_is_no_histogram(values):
    assert histogram(values) == {}


def test_neighbours_in_float32_are_told_apart():
    found = histogram(np.array([NEAR_ONE, ONE, ONE], np.float32))
    assert (found["counts"][0], found["counts"][-1], sum(found["counts"])) == (1, 2, 3)
    assert found["edges"] == sorted(set(found["edges"]))
    words = re.findall(r'class="x"[^>]*>([^<]*)<', drawn(found))
    assert len(set(words)) == 5
    assert all(float(NEAR_ONE) - 1e-8 <= float(word) <= 1 for word in words)


@given(
    st.one_of(
        arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats()),
        arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32)),
        arrays.arrays(np.float16, st.integers(1, 40), elements=st.floats(width=16)),
        arrays.arrays(np.int64, st.integers(1, 40)),
        arrays.arrays(np.uint64, st.integers(1, 40)),
    )
)
def test_all_that_is_finite_is_counted_and_drawn(values):
    found = histogram(values)
    finite = int(np.isfinite(values).sum())
    assert bool(found) == bool(finite)
    if found:
        edges = found["edges"]
        assert 1 <= len(found["counts"]) == len(edges) - 1 <= 30
        assert all(a < b for a, b in pairwise(edges))
        assert np.isfinite(edges).all()
        assert sum(found["counts"]) == finite
        places = re.findall(r"points=\"([^\"]*)\"", drawn(found))
        assert places
        numbers = [float(one) for one in re.split(r"[ ,]", " ".join(places))]
        assert all(-0.01 <= one <= 100.01 for one in numbers)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, HUGE), st.integers(1, 64))
def test_edges_ascend_between_any_two_numbers(low, span, bins):
    high = min(HUGE, low + span)
    edges = even_edges(low, high, bins)
    assert 2 <= len(edges) <= bins + 1
    assert (np.diff(edges / max(1.0, abs(edges).max())) >= 0).all()
    assert edges[0] <= low <= high <= edges[-1]
