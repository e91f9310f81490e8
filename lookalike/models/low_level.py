"""Blocks of the low-level features: what a picture looks like, not what it shows.

Functions of a view, or of its OKLab planes or luminance, to histograms that are not yet scaled:
`descriptors` makes features of them, `color_texture` the best of them together. No number is
negative, and none depends on the other images of a batch.
"""

import math
from collections.abc import Mapping

import numpy as np

from lookalike.models.pixel_ops import (
    View,
    cells,
    circular_bins,
    close,
    gradients,
    halve,
    knot_bins,
    luminance,
    orientation,
    pixels,
    rows,
    soft_bins,
    turns,
    unit,
)
from lookalike.models.quiet_tf import tf

# Hue means nothing without chroma: the bins at the lowest chroma, zero, are gray levels.
CHROMA_KNOTS = (0.0, 0.04, 0.07, 0.11, 0.15, 0.20)
HUES = 24
# Lowest centre, highest centre, bins: few for colours, as light varies more than paint.
COLOR_LIGHTNESS = (0.2, 0.95, 3)
GRAY_LIGHTNESS = (0.1, 1.0, 10)
# A palette for pairs of colours: 6 gray levels, 14 hues at 3 chromas.
PALETTE_KNOTS, PALETTE_HUES, PALETTE_GRAYS = (0.0, 0.045, 0.09, 0.15), 14, (0.1, 1.0, 6)
PALETTE = PALETTE_GRAYS[2] + PALETTE_HUES * (len(PALETTE_KNOTS) - 1)
PAIR_DISTANCE = 2  # of 64 pixels
# Colour difference histogram and micro-structure descriptor, as in their papers.
LAB_BINS = ((0.1, 1.0, 10), (-0.12, 0.12, 3), (-0.12, 0.12, 3))
DIFFERENCE_DIRECTIONS = 18
STRUCTURE_KNOTS, STRUCTURE_HUES, STRUCTURE_GRAYS = (0.0, 0.045, 0.09, 0.15), 21, (0.1, 1.0, 9)
STRUCTURE_DIRECTIONS = 6

ENERGY_SCALES = 3
ENERGY_BINS = 8
ENERGY_FLOOR = 0.015  # gradients below this are noise
ENERGY_CEILING = 0.5
CHROMA_GAIN = 2.5  # OKLab's a and b span about 0.4 where L spans 1
PATTERN_RADII = ((128, 1), (64, 1), (64, 2))  # side of the picture, radius
PATTERN_RAMP = 0.03  # a neighbour brighter by this much is brighter for certain
PATTERN_CHANGE_BINS = 5
DIRECTIONS = 8
SHAPE_GRID = 4
SHAPE_SCALES = 3


def color(seen: View) -> tf.Tensor:
    """Histogram hue, chroma and lightness jointly, each pixel counting by `attention`.

    (B, 370): 10 gray levels, then 24 hues × 5 chromas × 3 lightnesses.
    """
    weight = pixels(seen.weight)
    lightness, a, b = (pixels(seen.lab[:, i]) for i in range(3))
    chroma = knot_bins(tf.sqrt(a * a + b * b), CHROMA_KNOTS) * weight[:, None]
    gray = tf.matmul(soft_bins(lightness, *GRAY_LIGHTNESS), chroma[:, :1], transpose_b=True)
    hue = circular_bins(turns(b, a), HUES)
    # A joint histogram is a matrix product of two assignments: no scatter, one outer product.
    light = soft_bins(lightness, *COLOR_LIGHTNESS)
    shade = tf.concat([chroma[:, i : i + 1] * light for i in range(1, len(CHROMA_KNOTS))], 1)
    joint = close(tf.matmul(hue, shade, transpose_b=True))
    return tf.concat([rows(gray), rows(joint)], 1)


def palette(
    lab: tf.Tensor, knots: tuple[float, ...], hues: int, grays: tuple[float, float, int]
) -> tf.Tensor:
    """Share each pixel between the nearest colours: (B, 3, H, W) OKLab -> (B, K, H, W).

    K is grays + hues × (knots - 1): gray levels, then hues at each chroma.
    """
    lightness, a, b = (pixels(lab[:, i]) for i in range(3))
    chroma = knot_bins(tf.sqrt(a * a + b * b), knots)
    hue = close(circular_bins(turns(b, a), hues))
    colors = [hue * chroma[:, i : i + 1] for i in range(1, len(knots))]
    shares = tf.concat([soft_bins(lightness, *grays) * chroma[:, :1], *colors], 1)
    count = grays[2] + hues * (len(knots) - 1)
    return tf.reshape(shares, [-1, count, lab.shape[2], lab.shape[3]])


def beside(grid: tf.Tensor, down: int, right: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Cut (B, C, H, W) planes to the pixels that have a neighbour, and to these neighbours."""
    height, width = grid.shape[2] - down, grid.shape[3] - abs(right)
    here, there = max(0, -right), max(0, right)
    return grid[:, :, :height, here : here + width], grid[:, :, down:, there : there + width]


def color_pairs(seen: View) -> tf.Tensor:
    """Count which colours lie PAIR_DISTANCE apart, across and upright, by `attention`.

    (B, 1176): the upper triangle of a symmetric 48 × 48 table. Its diagonal
    is the autocorrelogram of Huang et al. 1997, the whole is their correlogram: two pictures of
    the same colours differ in how these lie together.
    """
    shares = palette(seen.lab, PALETTE_KNOTS, PALETTE_HUES, PALETTE_GRAYS)
    shares *= tf.sqrt(seen.weight)[:, None]
    tables = []
    for down, right in ((0, PAIR_DISTANCE), (PAIR_DISTANCE, 0)):
        one, two = (flat(half) for half in beside(shares, down, right))
        tables.append(tf.matmul(one, two, transpose_b=True))
    table = tf.add_n(tables)
    upper, left = np.triu_indices(PALETTE)
    return tf.gather(rows(table + tf.transpose(table, [0, 2, 1])), upper * PALETTE + left, axis=1)


def color_difference(lab: tf.Tensor) -> tf.Tensor:
    """Sum colour differences between neighbours (Liu & Yang 2013, in OKLab).

    (B, 3, H, W) -> (B, 108): by each of 90 colours, those between pixels of one edge direction; by
    each of 18 edge directions, those between pixels of one colour.
    """
    lightness, a, b = (soft_bins(pixels(lab[:, i]), *bins) for i, bins in enumerate(LAB_BINS))
    hue = tf.reshape(a[:, :, None] * b[:, None], [-1, 9, a.shape[2]])
    side = lab.shape[2]
    colors = tf.reshape(lightness[:, :, None] * hue[:, None], [-1, 90, side, side])
    turns = directions(lab, DIFFERENCE_DIRECTIONS)
    by_color, by_direction = [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one, two = beside(lab, down, right)
        step = flat(tf.norm(one - two, axis=1, keepdims=True))
        (here, there), (way, way_there) = (beside(x, down, right) for x in (colors, turns))
        same_way = flat(tf.reduce_sum(way * way_there, 1, keepdims=True)) * step
        same_color = flat(tf.reduce_sum(here * there, 1, keepdims=True)) * step
        by_color.append(tf.reduce_sum(flat(here + there) * same_way, 2))
        by_direction.append(tf.reduce_sum(flat(way + way_there) * same_color, 2))
    return tf.concat([tf.add_n(by_color), tf.add_n(by_direction)], 1)


def micro_structure(lab: tf.Tensor) -> tf.Tensor:
    """Count neighbours of one colour and one edge direction (Liu et al. 2011, in OKLab).

    (B, 3, H, W) -> (B, 72): for each of 72 colours, the share of its pixels' 8 neighbours that are
    in the same micro-structure and of the same colour, times the root of how common it is.
    """
    colors = palette(lab, STRUCTURE_KNOTS, STRUCTURE_HUES, STRUCTURE_GRAYS)
    turns = directions(lab, STRUCTURE_DIRECTIONS)
    alike = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        (here, there), (way, way_there) = (beside(x, down, right) for x in (colors, turns))
        same_way = tf.reduce_sum(way * way_there, 1, keepdims=True)
        alike.append(tf.reduce_mean(here * there * same_way, [2, 3]))
    # The paper divides by the number of pixels, which lets colours of few pixels speak loudest.
    return tf.add_n(alike) / tf.sqrt(tf.reduce_mean(colors, [2, 3]) + 1e-4)


def directions(lab: tf.Tensor, bins: int) -> tf.Tensor:
    """Share each pixel's edge direction between the nearest bins: (B, bins, H, W)."""
    half_turns, _ = orientation(lab)
    shares = close(circular_bins(half_turns, bins))
    return tf.reshape(shares, [-1, bins, lab.shape[2], lab.shape[3]])


def energy(seen: View) -> tf.Tensor:
    """Histogram log gradient magnitude for L, a and b at 3 scales, by `attention`.

    (B, 72). The energies of a small filter bank (as Manjunath & Ma 1996 used
    Gabor filters), kept as histograms: mean energy alone cannot tell fine print from one strong
    edge.
    """
    scaled = seen.lab * tf.constant([1.0, CHROMA_GAIN, CHROMA_GAIN])[:, None, None]
    weight = seen.weight[..., None]
    blocks = []
    for scale in range(ENERGY_SCALES):
        if scale:
            scaled, weight = halve(scaled), tf.nn.avg_pool2d(weight, 2, 2, "VALID")
        side = scaled.shape[2]
        dx, dy = gradients(scaled)
        level = tf.math.log(tf.sqrt(dx * dx + dy * dy) + ENERGY_FLOOR)
        level = tf.reshape(level, [-1, 3, side * side])
        shares = soft_bins(level, math.log(ENERGY_FLOOR), math.log(ENERGY_CEILING), ENERGY_BINS)
        shares = tf.reshape(shares, [-1, 3 * ENERGY_BINS, side * side])
        blocks.append(tf.matmul(shares, tf.reshape(weight, [-1, side * side, 1]))[..., 0])
    return tf.concat(blocks, 1)


def pattern(luma: tf.Tensor, weight: tf.Tensor, radius: int) -> tf.Tensor:
    """Histogram local binary patterns (Ojala et al. 2002), each pixel by its weight.

    (B, 1, H, W) luminance and (B, H, W) -> (B, 45). Each of 8 neighbours is brighter than the
    middle to a degree in [0, 1]; the number of brighter ones and the number of changes around the
    ring, which is what the uniform rotation invariant patterns keep, are then binned softly and
    jointly.
    """
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    ramp = luma[:, 0] / (2 * PATTERN_RAMP)
    side = luma.shape[2] - 2 * radius
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
    inside = pixels(weight[:, radius:-radius, radius:-radius])[:, None]
    return rows(tf.matmul(counted, changed * inside, transpose_b=True))


def patterns(views: Mapping[int, View]) -> tf.Tensor:
    """Histogram local binary patterns fine and coarse, of views by their side: (B, 135)."""
    found = [
        pattern(luminance(views[side].rgb), views[side].weight, radius)
        for side, radius in PATTERN_RADII
    ]
    return tf.concat(found, 1)


def shape(lab: tf.Tensor) -> tf.Tensor:
    """Histogram edge directions over a grid (HOG, Dalal & Triggs 2005).

    (B, 3, H, W) OKLab -> (B, 128): 8 directions × 4 × 4 cells, each edge shared between the nearest
    directions and cells. Zero for a flat image.
    """
    half_turns, magnitude = orientation(lab)
    oriented = circular_bins(half_turns, DIRECTIONS) * magnitude[:, None]
    grid = cells(lab.shape[2], SHAPE_GRID)
    # One product of two matrices: TensorFlow 2.21 crashes on some that spread over a batch.
    cut = tf.matmul(tf.reshape(oriented, [-1, grid.shape[1]]), grid, transpose_b=True)
    return rows(close(tf.reshape(cut, [-1, DIRECTIONS + 1, grid.shape[0]])))


def shapes(lab: tf.Tensor) -> tf.Tensor:
    """Lay out edges coarse and fine, as GIST does (Oliva & Torralba 2001): (B, 384).

    `shape` at three scales, each to unit length, (B, 3, H, W) OKLab.
    """
    blocks = []
    for scale in range(SHAPE_SCALES):
        lab = halve(lab) if scale else lab
        blocks.append(unit(shape(lab)))
    return tf.concat(blocks, 1)


def flat(grid: tf.Tensor) -> tf.Tensor:
    """Flatten planes: (B, C, H, W) -> (B, C, H·W)."""
    return tf.reshape(grid, [-1, grid.shape[1], grid.shape[2] * grid.shape[3]])
