"""Features with OpenCV: `pip install opencv-python-headless`.

In a config, started in this folder or with it in PYTHONPATH:

    features:
      - {name: colour, handle: "python:opencv_features:hsv_histogram", weight: 0.5}
      - {name: points, handle: "python:opencv_features:orb_words?size=320", weight: 0.5}
"""

import cv2
import numpy as np


def hsv_histogram(picture: np.ndarray, bins: int = 8) -> np.ndarray:
    """Colours: a histogram of hue, saturation and value, square-rooted.

    The inner product of two square-rooted histograms is the Bhattacharyya coefficient.

    Args:
        picture: (h, w, 3) uint8 RGB.
        bins: For each of the three.

    Returns:
        (bins ** 3,) float32.
    """
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    ranges = [0, 180, 0, 256, 0, 256]
    counts = cv2.calcHist([hsv], [0, 1, 2], None, [bins] * 3, ranges).ravel()
    return np.sqrt(counts / counts.sum())


def orb_words(picture: np.ndarray, words: int = 256, points: int = 500) -> np.ndarray:
    """Details: how often each of some visual words occurs among a picture's key points.

    A key point's word is the one of `words` random codes that has most bits in common with its ORB
    descriptor (Rublee et al., ICCV 2011), so that nothing has to be learned.

    Args:
        picture: (h, w, 3) uint8 RGB.
        words: Length of the vector.
        points: Key points to look for, at most.

    Returns:
        (words,) float32, square-rooted counts; zeros for a picture without key points.
    """
    orb = cv2.ORB_create(nfeatures=points)
    _, descriptors = orb.detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None)
    if descriptors is None:
        return np.zeros(words, np.float32)
    codes = np.random.default_rng(0).integers(0, 2, (words, 256)) * 2.0 - 1
    signs = np.unpackbits(descriptors, axis=1).astype(np.float32) * 2 - 1
    nearest = (signs @ codes.T.astype(np.float32)).argmax(axis=1)
    return np.sqrt(np.bincount(nearest, minlength=words)).astype(np.float32)
