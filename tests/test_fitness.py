from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.ivf.fitness import Fitness, compare, imbalance


def counted(rows, lists, nlist):
    """Two of four components kept, and a tenth of those lost by codes."""
    fitness = Fitness(nlist)
    fitness.add(rows, rows[:, :2], rows[:, :2] / 10, lists)
    return fitness


def test_measures_by_their_definitions_and_in_parts():
    random = np.random.default_rng(0)
    rows, lists = random.standard_normal((90, 4)).astype("f4"), random.integers(0, 5, 90)
    length, kept = (rows**2).sum(axis=1), (rows[:, :2] ** 2).sum(axis=1)
    whole = counted(rows, lists, 5).measures()
    assert whole["rotation_error"] == pytest.approx(((length - kept) / length).mean(), rel=1e-5)
    lost = (length - kept + kept / 100) / length
    assert whole["quantisation_error"] == pytest.approx(lost.mean(), rel=1e-5)
    sizes = np.bincount(lists, minlength=5)
    assert whole["imbalance"] == pytest.approx(sum((sizes / 90) ** 2) * 5)
    merged = counted(rows[:20], lists[:20], 5)
    merged.merge(counted(rows[20:], lists[20:], 5))
    assert merged.rows == 90
    assert merged.measures() == pytest.approx(whole)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30))
def test_imbalance_is_from_one_to_the_number_of_lists(sizes):
    assert 1 - 1e-9 <= imbalance(sizes) <= len(sizes) + 1e-9
    assert imbalance([7] * len(sizes)) == pytest.approx(1)
    assert imbalance([9] + [0] * (len(sizes) - 1)) == pytest.approx(len(sizes))


@pytest.mark.parametrize(
    ("error", "uneven", "fits"),
    [(0.1, 1.2, True), (0.109, 2.3, True), (0.112, 1.2, False), (0.1, 2.5, False), (0, 1, True)],
)
def test_a_trained_index_that_no_longer_fits_is_named(error, uneven, fits):
    training = {"quantisation_error": 0.1, "imbalance": 1.2}
    found = compare(training, {"quantisation_error": error, "imbalance": uneven})
    assert found["fits"] is fits
    assert found["imbalance_ratio"] == pytest.approx(uneven / 1.2, abs=1e-3)


def test_nothing_lost_before_and_now():
    nothing = {"quantisation_error": 0.0, "imbalance": 1.0}
    assert compare(nothing, nothing) == {"error_ratio": 1, "imbalance_ratio": 1, "fits": True}
