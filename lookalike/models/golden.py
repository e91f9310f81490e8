"""How far an engine's vectors are from TensorFlow's: measured on golden pictures.

The pictures come with this package: photographs' like, drawings, text, dark, saturated and flat
ones. An engine is as good as TensorFlow where it is near enough on every one of them.
"""

from __future__ import annotations

from importlib import resources

import numpy as np
import numpy.typing as npt

BOUND = 0.999
"""Lowest cosine to the reference, over the golden pictures, of an engine that changes nothing."""


def golden_pictures(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The pictures that engines are compared on, prepared for a model: (16, h, w, 3) uint8."""
    from lookalike.images.preparing import prepare

    folder = resources.files("lookalike.models") / "golden"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return np.stack([prepare(f.read_bytes(), f.name, sizes=[size]).arrays[0] for f in files])


def agreement(
    vectors: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], lengths: bool = False
) -> float:
    """Lowest cosine between rows of two (n, d) arrays; of `lengths`, their lowest ratio too.

    Two zero rows agree; a zero row and another, or one that is not finite, do not (0).
    """
    a, b = vectors.astype(np.float64), reference.astype(np.float64)
    if not np.isfinite(a).all():
        return 0.0
    along, across = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both = along * across
    cosines = np.divide((a * b).sum(axis=1), both, out=np.zeros(len(a)), where=both > 0)
    cosines[(along == 0) & (across == 0)] = 1
    if lengths:
        shorter, longer = np.minimum(along, across), np.maximum(along, across)
        ratios = np.divide(shorter, longer, out=np.ones(len(a)), where=longer > 0)
        cosines = np.minimum(cosines, ratios)
    return float(min(cosines.min(), 1.0))
