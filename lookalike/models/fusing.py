"""Several features' vectors of an image as one.

Each block is brought to unit length and scaled by the square root of its weight's share, then the
blocks are put side by side. The inner product of two such vectors is the weighted mean of the
blocks' cosines, so that fusing vectors and fusing scores are the same thing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lookalike.distances import Vectors, too_long

Mask = npt.NDArray[np.bool_]


def is_normalised(blocks: int, metric: str) -> bool:
    """Tell whether vectors have unit length: hybrids always, one feature under cosine."""
    return blocks > 1 or metric == "cosine"


def fuse(blocks: Sequence[Vectors], weights: Sequence[float], metric: str) -> tuple[Vectors, Mask]:
    """Join the vectors of several features into one vector per image.

    A hybrid, or any feature under cosine, gives unit rows. Where a block of a hybrid is zero (a
    descriptor that found nothing) it stays zero and the other blocks share its weight, so that the
    row has unit length all the same. A single feature under another metric passes as it is.

    Args:
        blocks: One (n, d_i) float array per feature.
        weights: One positive number per feature; only their shares of the sum matter.
        metric: One of `METRICS`.

    Returns:
        (n, sum of d_i) float32, and (n,) bool: whether the row can be used. It cannot when any
        value is not finite, when all are zero, for jaccard when one is negative, or, where the row
        keeps its length, when that is more than `distances.LONGEST`; such rows are zeros.
    """
    rows = len(blocks[0])
    fused = np.empty((rows, sum(block.shape[1] for block in blocks)), np.float32)
    ok = np.ones(rows, np.bool_)
    for block in blocks:
        ok &= np.isfinite(block).all(axis=1)
        if metric == "jaccard":
            ok &= (block >= 0).all(axis=1)
        if not is_normalised(len(blocks), metric):
            ok &= ~too_long(block, metric)
    norms = [_norms(block, ok) for block in blocks]
    # Shares of the weight of those blocks of a row that are not zero.
    total = sum((w * (norm > 0) for w, norm in zip(weights, norms, strict=True)), np.zeros(rows))
    ok &= total > 0

    start = 0
    for block, weight, norm in zip(blocks, weights, norms, strict=True):
        end = start + block.shape[1]
        use = ok & (norm > 0)
        factor = np.zeros(rows)
        if is_normalised(len(blocks), metric):
            np.divide(np.sqrt(weight / np.where(use, total, 1)), norm, out=factor, where=use)
        else:
            factor[use] = 1
        usable = np.where(use[:, None], block, 0)
        np.multiply(usable, factor[:, None], out=fused[:, start:end], casting="same_kind")
        start = end
    return fused, ok


def _norms(block: Vectors, ok: Mask) -> npt.NDArray[np.float64]:
    """Lengths of the rows; 0 for rows not ok, and for those too short to have a direction."""
    # In double precision, where no square of a float32 overflows or vanishes.
    squares = np.einsum("ij,ij->i", block, block, dtype=np.float64)
    norms = np.sqrt(np.where(ok, squares, 0))
    return np.where(norms >= np.finfo(np.float32).tiny, norms, 0)
