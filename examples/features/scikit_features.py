"""Features with scikit-image: `pip install scikit-image`.

In a config, started in this folder or with it in PYTHONPATH:

    features:
      - {name: texture, handle: "python:scikit_features:lbp_histogram", params: {radius: 2}}
      - {name: shape, handle: "python:scikit_features:hog_grid?size=128"}
"""

import numpy as np
from skimage.color import rgb2gray
from skimage.feature import hog, local_binary_pattern


def lbp_histogram(picture: np.ndarray, radius: float = 1, points: int = 8) -> np.ndarray:
    """Texture: a histogram of uniform local binary patterns (Ojala et al., PAMI 2002).

    Args:
        picture: (h, w, 3) uint8 RGB.
        radius: Of the circle about each pixel.
        points: On the circle.

    Returns:
        (points + 2,) float32, square-rooted.
    """
    gray = (rgb2gray(picture) * 255).round().astype(np.uint8)
    patterns = local_binary_pattern(gray, points, radius, method="uniform").astype(int)
    counts = np.bincount(patterns.ravel(), minlength=points + 2)
    return np.sqrt(counts / counts.sum()).astype(np.float32)


def hog_grid(picture: np.ndarray, cells: int = 4, orientations: int = 9) -> np.ndarray:
    """Shape: orientations of gradients over a grid (Dalal and Triggs, CVPR 2005).

    Args:
        picture: (h, w, 3) uint8 RGB.
        cells: Down and across.
        orientations: Per cell.

    Returns:
        (cells * cells * orientations,) float32; zeros for a plain picture.
    """
    height, width = picture.shape[:2]
    return hog(
        rgb2gray(picture),
        orientations=orientations,
        pixels_per_cell=(height // cells, width // cells),
        cells_per_block=(1, 1),
        feature_vector=True,
    ).astype(np.float32)
