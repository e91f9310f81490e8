"""Inner products of few rows and of many, and of which numpy's BLAS has no part."""

from __future__ import annotations

import numpy as np
import pytest

from lookalike.products import FEW, inner_products


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("n", [0, 1, 2, FEW, FEW + 1, 40])
def test_inner_products_are_those_of_the_definition(n: int, dtype: str) -> None:
    random = np.random.default_rng(n)
    rows = random.standard_normal((n, 33)).astype(dtype)
    others = random.standard_normal((70, 33)).astype(dtype)
    found = inner_products(rows, others)
    assert (found.shape, found.dtype) == ((n, 70), np.dtype(dtype))
    expected = (rows[:, None].astype("f8") * others[None].astype("f8")).sum(axis=2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if dtype == "f4" else 1e-13)


def test_views_of_any_strides_and_no_components() -> None:
    whole = np.arange(60, dtype="f4").reshape(6, 10)
    rows, others = whole[:2, 3:7], whole[::-2, 3:7]
    np.testing.assert_array_equal(inner_products(rows, others), (rows @ others.T))
    np.testing.assert_array_equal(
        inner_products(rows[:, :0], others[:, :0]), np.zeros((2, 3), "f4")
    )
