"""Features with NumPy alone.

In a config, started in this folder or with it in PYTHONPATH:

    features:
      - {name: edges, handle: "python:numpy_features:edge_histogram?bins=12"}
"""

import numpy as np


def edge_histogram(picture: np.ndarray, bins: int = 8, cells: int = 4) -> np.ndarray:
    """Shape: directions of edges in each cell of a grid, weighted by their strength.

    Args:
        picture: (h, w, 3) uint8 RGB.
        bins: Directions that are told apart, over half a turn.
        cells: Down and across.

    Returns:
        (cells * cells * bins,) float32, square-rooted; zeros for a plain picture.
    """
    gray = picture.astype(np.float32).mean(axis=2)
    down, across = np.gradient(gray)
    strength = np.hypot(down, across)
    direction = np.arctan2(down, across) % np.pi
    which = np.minimum((direction / np.pi * bins).astype(int), bins - 1)
    rows = np.arange(gray.shape[0])[:, None] * cells // gray.shape[0]
    columns = np.arange(gray.shape[1])[None, :] * cells // gray.shape[1]
    places = ((rows * cells + columns) * bins + which).ravel()
    counts = np.bincount(places, strength.ravel(), minlength=cells * cells * bins)
    return np.sqrt(counts / max(counts.sum(), 1e-12)).astype(np.float32)
