"""Inner products of few rows and of many, and of which numpy's BLAS has no part."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lookalike.parallel import cores
from lookalike.products import FEW, SOME, inner_products, steady_products


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("n", [0, 1, 2, FEW, FEW + 1, 40, SOME, SOME + 1])
def test_inner_products_are_those_of_the_definition(n: int, dtype: str) -> None:
    random = np.random.default_rng(n)
    rows = random.standard_normal((n, 133)).astype(dtype)
    others = random.standard_normal((2100, 133)).astype(dtype)  # in several pieces
    found = inner_products(rows, others)
    assert (found.shape, found.dtype) == ((n, 2100), np.dtype(dtype))
    for row, products in zip(rows, found, strict=True):
        expected = (row.astype("f8") * others.astype("f8")).sum(axis=1)
        np.testing.assert_allclose(
            products, expected, rtol=0, atol=1e-4 if dtype == "f4" else 1e-12
        )


@pytest.mark.parametrize("n", [2, 5])
def test_views_of_any_strides_and_no_components(n: int) -> None:
    whole = np.arange(60, dtype="f4").reshape(6, 10)
    rows, others = whole[:n, 3:7], whole[::-2, 3:7]
    np.testing.assert_array_equal(inner_products(rows, others), (rows @ others.T))
    np.testing.assert_array_equal(
        inner_products(rows[:, :0], others[:, :0]), np.zeros((n, 3), "f4")
    )


@pytest.mark.parametrize("n", [0, 1, SOME + 1, 1000])
def test_steady_products_are_the_same_product(n: int) -> None:
    random = np.random.default_rng(n)
    rows, others = (random.standard_normal((m, 133)).astype("f4") for m in (n, 70))
    found = steady_products(rows, others)
    assert (found.shape, found.dtype) == ((n, 70), np.dtype("f4"))
    np.testing.assert_allclose(found, rows.astype("f8") @ others.astype("f8").T, atol=1e-4)


# Nanoseconds of processor time of all other threads, while few and some rows are multiplied.
CODE = """
import os, time, numpy
from lookalike.products import FEW, SOME, inner_products, steady_products
def used():
    found = 0
    for name in os.listdir("/proc/self/task"):
        if name != str(os.getpid()):
            with open(f"/proc/self/task/{name}/schedstat") as file:
                found += int(file.read().split()[0])
    return found
many = numpy.ones((512, 512), "f4")
many @ many  # so that BLAS has the threads it was told to have
time.sleep(0.3)
before = used()
for n in (1, 2, FEW, FEW + 1, 10, SOME):
    for m, d, kind in ((4096, 128, "f4"), (2048, 512, "f4"), (128, 256, "f4"), (1000, 700, "f8")):
        inner_products(numpy.ones((n, d), kind), numpy.ones((m, d), kind))
for n in (1, 3 * SOME + 1):
    steady_products(numpy.ones((n, 256), "f4"), numpy.ones((128, 256), "f4"))
print(len(os.listdir("/proc/self/task")), used() - before)
"""


@pytest.mark.skipif(
    cores() < 2 or not Path("/proc/self/task").exists(),
    reason="threads are as many as cores, and their times are told by /proc",
)
def test_few_and_some_rows_wake_no_thread_of_a_blas() -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "4"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True
    )
    threads, others = map(int, done.stdout.split())
    assert threads >= 2  # there are some to wake
    assert others < 1_000_000  # one that is on its way to sleep; one that is woken uses more
