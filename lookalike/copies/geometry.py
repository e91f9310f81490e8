"""What one picture is to another: the same one edited, and how, or a mere look-alike.

Points that stand out (SIFT, Lowe 2004) are matched, and a homography that most matches agree on
(RANSAC) lays one picture over the other. Matches alone would not do: two photographs of one packet
share its print. So the pictures are compared where they overlap, block by block, and only a picture
that looks the same in most blocks is a copy. What the homography does to the picture's frame, and
which blocks differ, says what was done to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Gray = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

LOOK_ALIKE = "look-alike"
RELATIONS = ("re-encode", "resize", "overlay", "crop", "border", "rotation", "flip", LOOK_ALIKE)
"""Of a picture to the one that is kept; all but the last are copies."""

_POINTS = 500
_RATIO = 0.8  # of the distances to the best and the second-best match
_REACH = 4.0  # pixels from where the homography puts a point
_LEAST_MATCHES = 12
_GRID = 10  # blocks across and down
_BLOCK_SHARE = 0.6  # of a block's pixels, that the other picture covers
_LEAST_BLOCKS = 12
_ALIKE = 0.55  # of the blocks, in a copy; an overlay may change the others
_CLEAN = 0.93  # of the blocks, in a copy without an overlay
_CHANGED = 0.03  # of the blocks, in which something was laid over the picture
_MARKED = 0.05  # of such a block's pixels, that differ by
_MARK = 24.0  # levels
_LEVELS = 14.0  # mean difference of a block's pixels that is none, of 256
_CORRELATION = 0.85  # of a block's pixels with the other's, likewise
_FLAT = 4.0  # standard deviation of a block in which there is nothing to correlate
_WHOLE = 0.94  # share of a frame's area that counts as all of it
_UPRIGHT = 1.5  # degrees
_SAME_SIZE = 0.01  # of a side
_HELD = 0.88  # share of the smaller one's area that is in the larger
_LEAST_AREA = 0.15  # share of the larger picture that a crop has


@dataclass(frozen=True, eq=False)
class View:
    """A picture as it is compared.

    Attributes:
        gray: (h, w) uint8, in its own shape and small.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
    """

    gray: Gray
    width: int
    height: int

    @cached_property
    def points(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Where points stand out (n, 2), and their descriptors (n, 128)."""
        points, found = _sift().detectAndCompute(self.gray, None)
        places = np.array([one.pt for one in points], dtype=np.float32).reshape(-1, 2)
        return places, np.empty((0, 128), np.float32) if found is None else found

    @cached_property
    def mirrored(self) -> View:
        """The picture, left and right exchanged."""
        return View(np.ascontiguousarray(self.gray[:, ::-1]), self.width, self.height)

    @cached_property
    def soft(self) -> Gray:
        """The picture without the finest detail, which no encoder keeps."""
        return np.asarray(cv2.GaussianBlur(self.gray, (0, 0), 1.5), dtype=np.uint8)


def relation(kept: View, other: View) -> str:
    """What the other picture is to the one that is kept: one of RELATIONS."""
    cv2.setRNGSeed(0)  # RANSAC gives the same answer for the same pictures
    found, best = LOOK_ALIKE, 0.0
    views = ((False, other), (True, other.mirrored))
    for placed in (_stretched, _homography):  # what costs little comes first
        for flipped, view in views:
            matrix = placed(kept, view)
            if matrix is None:
                continue
            judged, alike = _judged(kept, view, matrix)
            if judged and alike > best:
                found, best = "flip" if flipped else judged, alike
            if best > _CLEAN:
                return found
    return found


def _sift() -> Any:
    made: Any = cv2.SIFT.create(nfeatures=_POINTS)
    return made


def _stretched(kept: View, other: View) -> Matrix:
    """The other picture laid on the whole of the kept one: (3, 3), from its pixels to those."""
    (height, width), (own_height, own_width) = other.gray.shape, kept.gray.shape
    return np.diag([own_width / width, own_height / height, 1.0])


def _homography(kept: View, other: View) -> Matrix | None:
    """How it lies on it by the points of both, likewise; None where too few agree."""
    (to, kept_found), (of, found) = kept.points, other.points
    if min(len(to), len(of)) < _LEAST_MATCHES:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(found, kept_found, k=2)
    good = [pair[0] for pair in pairs if len(pair) == 2 and _clear(*pair)]
    if len(good) < _LEAST_MATCHES:
        return None
    left = of[[one.queryIdx for one in good]]
    right = to[[one.trainIdx for one in good]]
    matrix, inside = cv2.findHomography(left, right, cv2.RANSAC, _REACH)
    if matrix is None or int(inside.sum()) < _LEAST_MATCHES:
        return None
    return np.asarray(matrix, dtype=np.float64)


def _clear(best: Any, second: Any) -> bool:
    return bool(best.distance < _RATIO * second.distance)


def _judged(kept: View, other: View, matrix: Matrix) -> tuple[str | None, float]:
    """What the other picture is if it lies on the kept one in this way, and how alike they are."""
    covers, blocks = _frames(kept, other, matrix), _blocks(kept, other, matrix)
    if covers is None or blocks is None:
        return None, 0.0
    (of_kept, of_other), (alike, changed) = covers, blocks
    if alike < _ALIKE:
        return None, alike
    if abs(_turn(other, matrix)) > _UPRIGHT:
        return "rotation", alike
    if of_other < _WHOLE:  # more around it than the kept one has
        return "border", alike
    if of_kept < _WHOLE:
        return "crop", alike
    if alike < _CLEAN or changed > _CHANGED:
        return "overlay", alike
    sizes = ((kept.width, other.width), (kept.height, other.height))
    same = all(abs(a - b) <= max(1, _SAME_SIZE * a) for a, b in sizes)
    return "re-encode" if same else "resize", alike


def _frames(kept: View, other: View, matrix: Matrix) -> tuple[float, float] | None:
    """Shares of the kept and the other picture's area that both have; None if neither has most."""
    (height, width), (own_height, own_width) = other.gray.shape, kept.gray.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    laid = cv2.perspectiveTransform(corners[None], matrix)[0]
    frame = np.array([[0, 0], [own_width, 0], [own_width, own_height], [0, own_height]], np.float32)
    if not (np.isfinite(laid).all() and cv2.isContourConvex(laid)):
        return None
    # A copy's opposite sides stay about equal: a view from elsewhere is no edit.
    sides = np.linalg.norm(np.roll(laid, -1, 0) - laid, axis=1)
    pairs = np.sort(sides.reshape(2, 2).T, axis=1)
    whole = float(cv2.contourArea(laid, oriented=True))
    if (pairs[:, 0] < 0.85 * pairs[:, 1]).any() or whole <= 0:
        return None
    common = float(cv2.intersectConvexConvex(laid, frame)[0])
    of_kept, of_other = common / (own_width * own_height), common / whole
    # One of them is in the other, or is nearly, as where a turned picture lost its corners.
    held = max(of_kept, of_other) > _HELD and min(of_kept, of_other) > _LEAST_AREA
    return (of_kept, of_other) if held else None


def _turn(other: View, matrix: Matrix) -> float:
    """By how many degrees the other picture lies turned on the kept one."""
    height, width = other.gray.shape
    middle = np.array([[[0, height / 2], [width, height / 2]]], dtype=np.float32)
    left, right = cv2.perspectiveTransform(middle, matrix)[0]
    return float(np.degrees(np.arctan2(*(right - left)[::-1])))


def _blocks(kept: View, other: View, matrix: Matrix) -> tuple[float, float] | None:
    """Shares of the blocks that look the same, and that something was laid on; None of too few."""
    # Seen in the smaller of both, so that neither is blown up.
    if abs(np.linalg.det(matrix[:2, :2])) < 1:
        one, two, matrix = kept, other, np.asarray(np.linalg.inv(matrix), np.float64)
    else:
        one, two, matrix = other, kept, matrix
    size = two.gray.shape[::-1]
    laid = cv2.warpPerspective(one.soft, matrix, size, flags=cv2.INTER_AREA)
    full = cv2.warpPerspective(np.full_like(one.gray, 255), matrix, size, flags=cv2.INTER_NEAREST)
    there: npt.NDArray[np.bool_] = cv2.erode(full, np.ones((5, 5), np.uint8)) > 0
    if not there.any():
        return None
    a, b = laid.astype(np.float32), two.soft.astype(np.float32)
    # Brightness and contrast of the whole are no difference.
    gain = np.clip(b[there].std() / max(1.0, a[there].std()), 0.7, 1.4)
    a = (a - np.median(a[there])) * gain + np.median(b[there])
    counted = same = changed = 0
    for rows in np.array_split(np.arange(size[1]), _GRID):
        for columns in np.array_split(np.arange(size[0]), _GRID):
            block = np.ix_(rows, columns)
            inside = there[block]
            if inside.size == 0 or inside.mean() < _BLOCK_SHARE:
                continue
            counted += 1
            left, right = a[block][inside], b[block][inside]
            same += _same(left, right)
            changed += bool((np.abs(left - right) > _MARK).mean() > _MARKED)
    return (same / counted, changed / counted) if counted >= _LEAST_BLOCKS else None


def _same(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Do pixels (n,) of a block look the same: by their differences, or by their pattern."""
    if float(np.abs(a - b).mean()) < _LEVELS and abs(float(a.std() - b.std())) < _LEVELS:
        flat = min(float(a.std()), float(b.std())) < _FLAT
        return flat or float(np.corrcoef(a, b)[0, 1]) > 0.5
    if min(float(a.std()), float(b.std())) < _FLAT:
        return False
    return float(np.corrcoef(a, b)[0, 1]) > _CORRELATION
