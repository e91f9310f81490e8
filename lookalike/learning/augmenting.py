"""Pictures changed at random while a network learns: what must not make a difference."""

from __future__ import annotations

import math
from typing import Any

from lookalike.models.quiet_tf import tf

_ASPECT = 4 / 3  # of a cut, at most
_LIGHT = 0.3  # brightness, contrast and saturation change by up to this power of e


def augment(images: Any, size: tuple[int, int], area: float, seed: Any) -> Any:
    """Cut, mirror and light each picture in another way; the same for the same seed.

    Args:
        images: (B, side, side, 3) uint8.
        size: (height, width) of what comes out.
        area: Of the picture that a cut leaves, at least.
        seed: Two int32.

    Returns:
        (B, *size, 3) float32 of 0 to 255.
    """
    count, side = tf.shape(images)[0], images.shape[1]
    drawn = tf.random.stateless_uniform((8, count), seed)
    share = area + (1 - area) * drawn[0]
    aspect = tf.exp((2 * drawn[1] - 1) * math.log(_ASPECT))
    height, width = (tf.minimum(1.0, tf.sqrt(one)) for one in (share / aspect, share * aspect))
    top, left = (1 - height) * drawn[2], (1 - width) * drawn[3]
    mirrored = drawn[4] < 0.5
    first = tf.where(mirrored, left + width, left)
    last = tf.where(mirrored, left, left + width)
    boxes = tf.stack([top, first, top + height, last], axis=1)
    factor = max(1, side // size[0])  # cuts are bilinear, and would alias where they reduce
    larger = (size[0] * factor, size[1] * factor)
    cut = tf.image.crop_and_resize(tf.cast(images, tf.float32), boxes, tf.range(count), larger)
    if factor > 1:
        cut = tf.nn.avg_pool2d(cut, factor, factor, "VALID")
    light, contrast, colour = (
        tf.exp((2 * drawn[row] - 1) * _LIGHT)[:, None, None, None] for row in (5, 6, 7)
    )
    cut *= light
    mean = tf.reduce_mean(cut, axis=[1, 2, 3], keepdims=True)
    cut = (cut - mean) * contrast + mean
    gray = tf.reduce_mean(cut, axis=3, keepdims=True)
    return tf.clip_by_value((cut - gray) * colour + gray, 0.0, 255.0)
