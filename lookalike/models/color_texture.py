"""The `builtin:color-texture` descriptor: what an image looks like, with nothing learned.

A low-level descriptor written in TensorFlow operations and exported as a reusable SavedModel, so
that the code that runs TF-Hub models runs it too. Four blocks describe an image of INPUT_SIZE:

    color    soft histogram over hue, chroma and lightness of OKLab, of what stands out       370
    energy   soft histograms of log gradient magnitude, for 3 channels at 3 scales             72
    pattern  local binary patterns at 2 radii: how many neighbours are brighter, how mixed     90
    shape    gradient orientations over a grid                                                128

Each block is non-negative, has unit length and is scaled by the square root of its weight, which is
how features are fused elsewhere too: the cosine of two descriptors is the weighted mean of their
blocks' cosines. Every assignment to a bin is soft (linear between bin centres), so that a small
change of the pixels, such as another JPEG quality, is a small change of the descriptor.

Nothing here depends on the other images of a batch, and there are no variables. Anything that
changes the numbers must raise its version in `handles.BUILTINS`: the fingerprint of stored vectors
is made from it.
"""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np

from lookalike.models.quiet_tf import tf

NAME = "color-texture"
INPUT_SIZE = (128, 128)
"""Height and width of the input, in pixels."""

# Colour. Hue means nothing without chroma: the bins at the lowest chroma, zero, are gray levels.
# The toe is light added before the cube root, which would blow up the noise of shadows.
DARK_TOE = 0.002
HUES = 24
CHROMA_KNOTS = (0.0, 0.04, 0.07, 0.11, 0.15, 0.20)
# Lowest centre, highest centre, bins: few for colours, as light varies more than paint.
COLOR_LIGHTNESS = (0.2, 0.95, 3)
GRAY_LIGHTNESS = (0.1, 1.0, 10)
# What stands out: near the middle, unlike the border, on an edge. Floors are what any pixel has.
CENTER_SIGMA = 0.6  # in half image sides
BORDER = 6  # pixels of the halved image
SALIENCY_FLOOR = 0.01
EDGE_FLOOR = 0.004
# Texture and shape.
ENERGY_SCALES = 3
ENERGY_BINS = 8
ENERGY_FLOOR = 0.015  # gradients below this are noise
ENERGY_CEILING = 0.5
CHROMA_GAIN = 2.5  # OKLab's a and b span about 0.4 where L spans 1
PATTERN_RADII = (1, 2)
PATTERN_RAMP = 0.03  # a neighbour brighter by this much is brighter for certain
PATTERN_CHANGE_BINS = 5
ORIENTATIONS = 8
SHAPE_GRID = 4

# Where the product is the colour, as on grocery shelves, shape only distracts; where it is not, as
# in scenes and objects, shape is what tells. A compromise between collections of both kinds.
WEIGHTS = {"color": 0.5, "energy": 0.2, "pattern": 0.15, "shape": 0.15}

_COLOR_DIM = GRAY_LIGHTNESS[2] + HUES * (len(CHROMA_KNOTS) - 1) * COLOR_LIGHTNESS[2]
_ENERGY_DIM = 3 * ENERGY_SCALES * ENERGY_BINS
_PATTERN_DIM = len(PATTERN_RADII) * 9 * PATTERN_CHANGE_BINS
_SHAPE_DIM = SHAPE_GRID**2 * ORIENTATIONS
DIM = _COLOR_DIM + _ENERGY_DIM + _PATTERN_DIM + _SHAPE_DIM

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


def oklab(rgb: tf.Tensor) -> tf.Tensor:
    """Convert sRGB planes in [0, 1] to OKLab (Ottosson 2020), L in [0, 1], a and b around 0.

    (B, 3, N) -> (B, 3, N). Powers are taken through exp and log, which run five times as fast.
    """
    curve = tf.exp(2.4 * tf.math.log((rgb + 0.055) / 1.055))
    linear = tf.where(rgb <= 0.04045, rgb / 12.92, curve)
    lms = tf.matmul(tf.constant([_LMS_FROM_LINEAR]), linear)
    root = tf.exp(tf.math.log(lms + DARK_TOE) / 3.0)
    return tf.matmul(tf.constant([_OKLAB_FROM_LMS]), root)


def soft_bins(values: tf.Tensor, low: float, high: float, bins: int) -> tf.Tensor:
    """Share each value between the two nearest of `bins` centres evenly spaced over [low, high].

    (..., N) -> (..., bins, N); values outside go to the first or last bin whole; shares sum to 1.
    """
    position = (tf.clip_by_value(values, low, high) - low) * ((bins - 1) / (high - low))
    return tents(position, bins)


def circular_bins(turns: tf.Tensor, bins: int) -> tf.Tensor:
    """Share each angle, in turns within [-1, 1], between the two nearest of `bins` directions.

    (..., N) -> (..., bins + 1, N); shares sum to 1. The last bin is the first once more: `close`
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
    """Share each position between the whole numbers beside it: (..., N) -> (..., bins, N)."""
    centers = tf.range(bins, dtype=tf.float32)[:, None]
    return tf.nn.relu(1.0 - tf.abs(position[..., None, :] - centers))


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
    return tf.matmul(sums, tf.constant(columns_in_pairs))


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
    across = [scaled[:, :, :BORDER], scaled[:, :, -BORDER:]]
    upright = [scaled[..., :BORDER], scaled[..., -BORDER:]]
    means = [tf.reduce_mean(band, [2, 3], keepdims=True) for band in across + upright]
    border = tf.add_n(means) / 4.0
    contrast = tf.norm(scaled - border, axis=1)
    window = center_window(lab.shape[2])
    return window * tf.sqrt((contrast + SALIENCY_FLOOR) * (edge + EDGE_FLOOR))


def color(lab: tf.Tensor) -> tf.Tensor:
    """Histogram hue, chroma and lightness jointly, each pixel counting by `attention`.

    (B, 3, H, W) OKLab -> (B, 370): 10 gray levels, then 24 hues × 5 chromas × 3 lightnesses.
    """
    weight = pixels(attention(lab))
    lightness, a, b = (pixels(lab[:, i]) for i in range(3))
    chroma = knot_bins(tf.sqrt(a * a + b * b), CHROMA_KNOTS) * weight[:, None]
    gray = tf.matmul(soft_bins(lightness, *GRAY_LIGHTNESS), chroma[:, :1], transpose_b=True)
    hue = circular_bins(tf.atan2(b, a) / (2 * math.pi), HUES)
    # A joint histogram is a matrix product of two assignments: no scatter, one outer product.
    light = soft_bins(lightness, *COLOR_LIGHTNESS)
    shade = tf.concat([chroma[:, i : i + 1] * light for i in range(1, len(CHROMA_KNOTS))], 1)
    joint = close(tf.matmul(hue, shade, transpose_b=True))
    return tf.concat([rows(gray), rows(joint)], 1)


def energy(lab: tf.Tensor) -> tf.Tensor:
    """Histogram log gradient magnitude for L, a and b at 3 scales, in a central window.

    (B, 3, H, W) OKLab -> (B, 72). The energies of a small filter bank (as Manjunath & Ma 1996 used
    Gabor filters), kept as histograms: mean energy alone cannot tell fine print from one strong
    edge.
    """
    planes = lab * tf.constant([1.0, CHROMA_GAIN, CHROMA_GAIN])[:, None, None]
    blocks = []
    for scale in range(ENERGY_SCALES):
        planes = halve(planes) if scale else planes
        side = planes.shape[2]
        dx, dy = gradients(planes)
        level = tf.math.log(tf.sqrt(dx * dx + dy * dy) + ENERGY_FLOOR)
        level = tf.reshape(level, [-1, 3, side * side])
        shares = soft_bins(level, math.log(ENERGY_FLOOR), math.log(ENERGY_CEILING), ENERGY_BINS)
        blocks.append(tf.linalg.matvec(shares, tf.reshape(center_window(side), [-1])))
    return rows(tf.concat(blocks, 2))


def pattern(luma: tf.Tensor) -> tf.Tensor:
    """Histogram local binary patterns (Ojala et al. 2002) at 2 radii, in a central window.

    (B, 1, H, W) luminance -> (B, 90). Each of 8 neighbours is brighter than the middle to a degree
    in [0, 1]; the number of brighter ones and the number of changes around the ring, which is what
    the uniform rotation invariant patterns keep, are then binned softly and jointly.
    """
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    blocks = []
    for radius in PATTERN_RADII:
        side = luma.shape[2] - 2 * radius
        ramp = luma[:, 0] / (2 * PATTERN_RAMP)
        middle = ramp[:, radius:-radius, radius:-radius] - 0.5
        brighter = []
        for row, column in ring:
            y, x = row * radius, column * radius
            step = ramp[:, y : y + side, x : x + side] - middle
            brighter.append(tf.clip_by_value(step, 0.0, 1.0))
        count = tf.add_n(brighter)
        changes = tf.add_n([tf.abs(brighter[i] - brighter[i - 1]) for i in range(len(ring))])
        counted = soft_bins(pixels(count), 0.0, 8.0, 9)
        changed = soft_bins(pixels(changes), 0.0, 8.0, PATTERN_CHANGE_BINS)
        window = tf.reshape(center_window(side), [-1])
        blocks.append(tf.matmul(counted, changed * window, transpose_b=True))
    return rows(tf.concat(blocks, 1))


def shape(luma: tf.Tensor) -> tf.Tensor:
    """Histogram gradient orientations over a grid (HOG, Dalal & Triggs 2005).

    (B, 1, H, W) luminance -> (B, 128): 8 unsigned orientations, 4 × 4 cells, each gradient shared
    between the nearest orientations and cells. Zero for a flat image.
    """
    side = luma.shape[2]
    dx, dy = (pixels(d[:, 0]) for d in gradients(luma))
    magnitude = tf.sqrt(dx * dx + dy * dy)
    oriented = circular_bins(tf.atan2(dy, dx) / math.pi, ORIENTATIONS) * magnitude[:, None]
    along = (tf.range(side, dtype=tf.float32) + 0.5) * (SHAPE_GRID / side) - 0.5
    cell = soft_bins(along, 0.0, SHAPE_GRID - 1.0, SHAPE_GRID)
    grid = tf.reshape(cell[:, None, :, None] * cell[None, :, None, :], [SHAPE_GRID**2, side * side])
    return rows(close(tf.matmul(oriented, grid, transpose_b=True)))


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


_IMAGES = tf.TensorSpec([None, *INPUT_SIZE, 3], tf.float32, name="images")


class ColorTexture(tf.Module):  # type: ignore[misc]
    """The descriptor as a TF-Hub style callable."""

    @tf.function(input_signature=[_IMAGES], autograph=False)  # type: ignore[untyped-decorator]
    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Describe images: (B, 128, 128, 3) float32 RGB in [0, 1] -> (B, DIM) float32, >= 0."""
        # Half the size keeps what the blocks look at; planes side by side are faster to work on.
        small = tf.nn.avg_pool2d(tf.clip_by_value(images, 0.0, 1.0), 2, 2, "VALID")
        side = small.shape[1]
        rgb = tf.reshape(tf.transpose(small, [0, 3, 1, 2]), [-1, 3, side * side])
        luma = tf.reshape(tf.matmul(tf.constant([[_LUMA]]), rgb), [-1, 1, side, side])
        lab = tf.reshape(oklab(rgb), [-1, 3, side, side])
        blocks = {
            "color": hellinger(color(lab)),
            "energy": unit(energy(lab)),
            "pattern": hellinger(pattern(luma)),
            "shape": unit(shape(luma)),
        }
        return tf.concat([math.sqrt(WEIGHTS[name]) * block for name, block in blocks.items()], 1)


def build() -> tf.Module:
    """Return the descriptor, ready to be called: (B, 128, 128, 3) float32 in [0, 1] -> (B, DIM)."""
    return ColorTexture(name="color_texture")


def export(folder: Path) -> None:
    """Write the descriptor to `folder`: a TF2 reusable SavedModel, also with `serving_default`."""
    module = build()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)
