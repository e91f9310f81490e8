"""Inner products of rows, without waiting for other threads where the rows are few.

A BLAS splits even a small product among its threads, and returns when the last one is done: a gain
of microseconds where every core is free, and a loss of milliseconds where another process has one,
for threads that wait keep their own cores busy meanwhile. So a few rows are multiplied by numpy's
own loop, which works in the thread that asks whatever BLAS there is, and some more in pieces that
are too small for OpenBLAS to split.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FEW = 3  # rows; for so many, numpy's loop is no slower than a BLAS that packs the others first
SOME = 64  # rows; for more, the gain of more threads is worth their wait
_UNSPLIT = 1 << 18  # multiplications that OpenBLAS leaves to one thread, on every processor


def inner_products(rows: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Inner products (n, m) of rows (n, d) with others (m, d), of one dtype, which is the result's.

    Their last bits depend on how many rows there are, and those of many on the BLAS.
    """
    if len(rows) <= FEW:
        return np.asarray(np.einsum("nd,md->nm", rows, others))
    if len(rows) > SOME:
        return np.asarray(rows @ others.T)
    found = np.empty((len(rows), len(others)), dtype=rows.dtype)
    step = max(1, _UNSPLIT // max(1, rows.size))
    for start in range(0, len(others), step):
        part = slice(start, start + step)
        np.matmul(rows, others[part].T, out=found[:, part])
    return found


def steady_products(rows: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same as `inner_products`, with the same bits however many threads BLAS has.

    Threads get pieces of other shapes, and some processors' kernels add up other shapes in another
    order; so no piece is large enough to be split. One thread takes half as long again for that.
    """
    found = np.empty((len(rows), len(others)), dtype=rows.dtype)
    for start in range(0, len(rows), SOME):
        part = slice(start, start + SOME)
        found[part] = inner_products(rows[part], others)
    return found
