"""Inner products of rows, without waiting for other threads where the rows are few.

A BLAS splits even the product of one row among its threads, and returns when the last one is done:
a gain of microseconds where every core is free, and a loss of milliseconds where another process
has one, for a thread that waits keeps its own core busy meanwhile. Numpy's own loop works in the
thread that asks, whatever BLAS numpy was built with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FEW = 4  # rows; for so many, numpy's loop is no slower than a BLAS that packs the others first


def inner_products(rows: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Inner products (n, m) of rows (n, d) with others (m, d), of one dtype, which is the result's.

    Last bits depend on whether rows are few, and those of many on the BLAS.
    """
    if len(rows) <= FEW:
        return np.asarray(np.einsum("nd,md->nm", rows, others))
    return np.asarray(rows @ others.T)
