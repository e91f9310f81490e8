"""What the low-level descriptors are made of: planes of pixels, soft bins, windows, attention.

All of it is TensorFlow operations on whole batches, that every engine runs alike. Planes lie side
by side, (B, C, H, W), as they are faster to work on than pixels of three numbers. Every assignment
to a bin is soft (linear between bin centres), so that a small change of the pixels, such as another
JPEG quality, is a small change of the descriptor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lookalike.models.quiet_tf import tf

Floats = npt.NDArray[np.float64]

DARK_TOE = 0.002
"""Light added before the cube root, which would blow up the noise of shadows."""
CENTER_SIGMA = 0.6
"""Of the window around the middle, in half image sides."""
BORDER = 10
"""The border of a picture is this part of its side (a tenth)."""
# Floors are what any pixel has.
SALIENCY_FLOOR, EDGE_FLOOR = 0.01, 0.004

_LUMA = (0.2126, 0.7152, 0.0722)
_LMS_FROM_LINEAR = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_OKLAB_FROM_LMS = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def to_planes(images: tf.Tensor, side: int) -> tf.Tensor:
    """Reduce images to planes: (B, H, H, 3) in [0, 1] -> (B, 3, side, side), side by halving H."""
    planes = tf.transpose(tf.clip_by_value(images, 0.0, 1.0), [0, 3, 1, 2])
    while planes.shape[2] > side:
        planes = halve(planes)
    return planes


@dataclass(frozen=True)
class View:
    """A picture at one size, and what is made of it for more than one block.

    Attributes:
        rgb: (B, 3, H, W), as `to_planes` gives it.
        lab: (B, 3, H, W), of `oklab`.
        weight: (B, H, W), of `attention`.
    """

    rgb: tf.Tensor
    lab: tf.Tensor
    weight: tf.Tensor


def view(images: tf.Tensor, side: int) -> View:
    """See images at a size: (B, H, H, 3) in [0, 1] -> planes of side × side."""
    rgb = to_planes(images, side)
    lab = oklab(rgb)
    return View(rgb, lab, attention(lab))


def luminance(rgb: tf.Tensor) -> tf.Tensor:
    """Weigh the colours of (B, 3, H, W) planes as the eye does: (B, 1, H, W)."""
    side = rgb.shape[2]
    return tf.reshape(
        tf.matmul(tf.constant([[_LUMA]]), tf.reshape(rgb, [-1, 3, side * side])),
        [-1, 1, side, side],
    )


def oklab(rgb: tf.Tensor) -> tf.Tensor:
    """Convert sRGB planes in [0, 1] to OKLab (Ottosson 2020), L in [0, 1], a and b around 0.

    (B, 3, H, W) -> (B, 3, H, W).
    """
    side = rgb.shape[2]
    flat = tf.reshape(rgb, [-1, 3, side * side])
    curve = power((flat + 0.055) / 1.055, 2.4, 0.055 / 1.055, roots=1)
    linear = tf.where(flat <= 0.04045, flat / 12.92, curve)
    lms = tf.matmul(tf.constant([_LMS_FROM_LINEAR]), linear)
    root = power(lms + DARK_TOE, 1 / 3, DARK_TOE, roots=2)
    return tf.reshape(tf.matmul(tf.constant([_OKLAB_FROM_LMS]), root), [-1, 3, side, side])


def power(values: tf.Tensor, exponent: float, lowest: float, roots: int) -> tf.Tensor:
    """Raise values within [lowest, 1 + DARK_TOE] to a power, to about 3e-7.

    By a polynomial of the values after so many square roots, which make a power easy to follow:
    engines run sums, products and square roots many at a time, `pow`, `exp` and `log` one by one.
    """
    ends = [end**0.5**roots for end in (lowest, 1.0 + DARK_TOE)]
    for _ in range(roots):
        values = tf.sqrt(values)
    return polynomial(values, lambda x: x ** (exponent * 2**roots), *ends)


def turns(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """The angle of (x, y) in turns, within [-1/2, 1/2], as `atan2` has it; 0 where both are 0."""
    up, along = tf.abs(y), tf.abs(x)
    slope = tf.minimum(up, along) / tf.maximum(tf.maximum(up, along), 1e-30)
    angle = slope * polynomial(slope * slope, _arctan_over_slope, 0.0, 1.0)
    angle = tf.where(up > along, 0.25 - angle, angle)
    angle = tf.where(x < 0.0, 0.5 - angle, angle)
    return tf.where(y < 0.0, -angle, angle)


def _arctan_over_slope(square: Floats) -> Floats:
    slope = np.sqrt(np.maximum(square, 1e-12))
    return np.asarray(np.arctan(slope) / slope / (2 * np.pi))


def polynomial(
    values: tf.Tensor, function: Callable[[Floats], Floats], low: float, high: float
) -> tf.Tensor:
    """A smooth function of values within [low, high], as a polynomial of degree 9."""
    series = np.polynomial.Chebyshev.interpolate(function, 9, [low, high])
    *lower, result = np.polynomial.chebyshev.cheb2poly(series.coef)
    middle, half = (low + high) / 2, (high - low) / 2
    centred = (values - middle) / half
    for coefficient in reversed(lower):
        result = result * centred + coefficient
    return result


def soft_bins(values: tf.Tensor, low: float, high: float, bins: int) -> tf.Tensor:
    """Share each value between the two nearest of `bins` centres evenly spaced over [low, high].

    (B, …, N) -> (B, …, bins, N); values outside go to the first or last bin whole; shares sum to 1.
    """
    position = (tf.clip_by_value(values, low, high) - low) * ((bins - 1) / (high - low))
    return tents(position, bins)


def circular_bins(turns: tf.Tensor, bins: int) -> tf.Tensor:
    """Share each angle, in turns within [-1, 1], between the two nearest of `bins` directions.

    (B, …, N) -> (B, …, bins + 1, N); shares sum to 1. The last bin is the first once more: `close`
    adds them up in the finished histogram, which has fewer numbers to go through than there are
    here.
    """
    position = turns * bins
    position = tf.where(position < 0.0, position + bins, position)
    return tents(position, bins + 1)


def close(histogram: tf.Tensor) -> tf.Tensor:
    """Add the last bin of `circular_bins` to the first: (B, bins + 1, M) -> (B, bins, M)."""
    return tf.concat([histogram[:, :1] + histogram[:, -1:], histogram[:, 1:-1]], 1)


def tents(position: tf.Tensor, bins: int) -> tf.Tensor:
    """Share each position between the whole numbers beside it: (B, …, N) -> (B, …, bins, N)."""
    centers = tf.range(bins, dtype=tf.float32)[:, None]
    *outer, inner = position.shape[1:]
    # With fewer than six dimensions OpenVINO lays the bins out in blocks of 16, and then moves all
    # of them back for the matrix products that follow: a third of a descriptor's time.
    position = tf.reshape(position, [1] * (3 - len(outer)) + [-1, *outer, 1, inner])
    return tf.reshape(tf.nn.relu(1.0 - tf.abs(position - centers)), [-1, *outer, bins, inner])


def knot_bins(values: tf.Tensor, knots: tuple[float, ...]) -> tf.Tensor:
    """Share each value between the two nearest of K uneven knots: (B, N) -> (B, K, N)."""
    rise = [(values - a) / (b - a) for a, b in pairwise(knots)]
    ones = tf.ones_like(values)
    tents = zip([ones, *rise], [*(1.0 - x for x in rise), ones], strict=True)
    shares = [tf.clip_by_value(tf.minimum(up, down), 0.0, 1.0) for up, down in tents]
    return tf.stack(shares, axis=1)


def gradients(planes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the central differences along x and y of (B, C, H, W) planes, in the same shape."""
    padded = tf.pad(planes, [[0, 0], [0, 0], [1, 1], [1, 1]], "SYMMETRIC")
    return (
        padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2],
        padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1],
    )


def halve(planes: tf.Tensor) -> tf.Tensor:
    """Average 2 × 2 pixels of (B, C, H, W) planes."""
    channels, height, width = planes.shape[1:]
    # Rows by slices that lie in one piece, columns by a product: slices of every second element
    # took a sixth of the whole descriptor's time.
    rows_in_pairs = tf.reshape(planes, [-1, channels, height // 2, 2 * width])
    sums = rows_in_pairs[..., :width] + rows_in_pairs[..., width:]
    columns_in_pairs = np.repeat(np.eye(width // 2, dtype=np.float32), 2, axis=0) / 4
    halved = tf.matmul(tf.reshape(sums, [-1, width]), tf.constant(columns_in_pairs))
    return tf.reshape(halved, [-1, channels, height // 2, width // 2])


def center_window(side: int) -> tf.Tensor:
    """Return a Gaussian around the middle of the image, (side, side), summing to 1."""
    along = (tf.range(side, dtype=tf.float32) + 0.5) * (2.0 / side) - 1.0
    line = tf.exp(-(along**2) / (2 * CENTER_SIGMA**2))
    line = line / tf.reduce_sum(line)
    return line[:, None] * line[None, :]


def attention(lab: tf.Tensor) -> tf.Tensor:
    """Weigh the pixels of an OKLab image, (B, 3, H, W) -> (B, H, W): how much each stands out.

    The product of a central window, of the contrast with the mean colour of the border (the
    boundary prior of Wei et al. 2012), and of the colour gradient: the colour difference histogram
    (Liu & Yang 2013) counts differences rather than pixels for the same reason, as large even
    surfaces say little.
    """
    scaled = lab * tf.constant([1.0, 2.0, 2.0])[:, None, None]
    dx, dy = gradients(scaled)
    edge = tf.sqrt(tf.reduce_sum(dx * dx + dy * dy, 1))
    wide = lab.shape[2] // BORDER
    across = [scaled[:, :, :wide], scaled[:, :, -wide:]]
    upright = [scaled[..., :wide], scaled[..., -wide:]]
    means = [tf.reduce_mean(band, [2, 3], keepdims=True) for band in across + upright]
    contrast = tf.norm(scaled - tf.add_n(means) / 4.0, axis=1)
    # Contrast to the power of .5, the gradient to that of .75.
    root = tf.sqrt(edge + EDGE_FLOOR)
    saliency = tf.sqrt(contrast + SALIENCY_FLOOR) * root * tf.sqrt(root)
    return center_window(lab.shape[2]) * saliency


def orientation(lab: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The direction in which the colours of (B, 3, H, W) OKLab planes change most, and how much.

    (B, H·W) in half turns within [-1/2, 1/2], and (B, H·W). Of the structure tensor over the three
    channels (Di Zenzo 1986), so that edges between colours of one lightness count.
    """
    dx, dy = gradients(lab * tf.constant([1.0, 2.0, 2.0])[:, None, None])
    xx, yy, xy = (tf.reduce_sum(one, 1) for one in (dx * dx, dy * dy, dx * dy))
    # Of twice the direction's angle, in turns: of the angle itself in half turns.
    return pixels(turns(2.0 * xy, xx - yy)), pixels(tf.sqrt(xx + yy))


def cells(side: int, grid: int) -> tf.Tensor:
    """Share each pixel between the nearest of grid × grid cells: (grid², side²)."""
    along = (tf.range(side, dtype=tf.float32) + 0.5) * (grid / side) - 0.5
    cell = soft_bins(along[None], 0.0, grid - 1.0, grid)[0]
    return tf.reshape(cell[:, None, :, None] * cell[None, :, None, :], [grid**2, side * side])


def pixels(plane: tf.Tensor) -> tf.Tensor:
    """Flatten a plane: (B, H, W) -> (B, H·W)."""
    return tf.reshape(plane, [-1, plane.shape[1] * plane.shape[2]])


def rows(block: tf.Tensor) -> tf.Tensor:
    """Flatten a table: (B, M, N) -> (B, M·N)."""
    return tf.reshape(block, [-1, block.shape[1] * block.shape[2]])


def unit(block: tf.Tensor) -> tf.Tensor:
    """Scale each row of (B, N) to unit length; a zero row stays zero."""
    return block / (tf.norm(block, axis=1, keepdims=True) + 1e-7)


def hellinger(block: tf.Tensor) -> tf.Tensor:
    """Take the square root of each row of (B, N), to unit length.

    The inner product of such rows is the Bhattacharyya coefficient of the histograms, which keeps a
    few large bins from drowning the rest (RootSIFT, Arandjelović & Zisserman 2012).
    """
    return unit(tf.sqrt(block / (tf.reduce_sum(block, 1, keepdims=True) + 1e-12)))
