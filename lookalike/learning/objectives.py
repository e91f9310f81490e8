"""What a network is shown in training, pictures changed at random, and what it is trained for.

That is vectors near each other where pictures are of one kind.

With labels: the normalised softmax over one proxy for each kind (Zhai & Wu, "Classification is a
Strong Baseline for Deep Metric Learning", BMVC 2019). Without: two views of one picture find each
other among those of others (Chen et al., "A Simple Framework for Contrastive Learning of Visual
Representations", ICML 2020). That alone would unlearn what a network knows of kinds of things, so
pictures must stay as like each other as they are to the network that it was (Tung & Mori,
"Similarity-Preserving Knowledge Distillation", ICCV 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.models.quiet_tf import tf

TEMPERATURE = 0.1
KEEPING = 10.0
"""What a squared change of cosines costs, where there is something to be kept."""
PROXY_RATE = 0.01  # of learning: proxies are far from where they belong, the network is not

_ASPECT = 4 / 3  # of a cut, at most
_LIGHT = 0.3  # brightness, contrast and saturation change by up to this power of e

Vectors = npt.NDArray[np.float32]


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


class Proxies:
    """One direction for each kind, learned beside the network."""

    def __init__(self, initial: Vectors) -> None:
        """Begin with these directions, (kinds, dim)."""
        self._proxies = tf.Variable(initial, name="proxies")
        self.variables = [self._proxies]

    def loss(self, vectors: Any, kinds: Any, views: Any) -> Any:
        """Of unit vectors (B, dim) of these kinds (B,), and the views that they are of."""
        scores = tf.matmul(vectors, tf.math.l2_normalize(self._proxies, 1), transpose_b=True)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(kinds, scores / TEMPERATURE)
        return tf.reduce_mean(each)


class Contrast:
    """Views of the same picture, against those of the others of a batch."""

    variables: tuple[Any, ...] = ()

    def __init__(self, teacher: Callable[[Any], Any] | None = None) -> None:
        """Take what gives the vectors of views that cosines are to stay near to."""
        self._teacher = teacher

    def loss(self, vectors: Any, kinds: Any, views: Any) -> Any:
        """Of unit vectors (B, dim), at least two of each of these kinds (B,), and their views."""
        cosines = tf.matmul(vectors, vectors, transpose_b=True)
        itself = tf.eye(tf.shape(vectors)[0])
        scores = cosines / TEMPERATURE - 1e9 * itself
        right = tf.cast(kinds[:, None] == kinds[None], tf.float32) - itself
        likely = scores - tf.reduce_logsumexp(scores, axis=1, keepdims=True)
        each = tf.reduce_sum(right * likely, axis=1) / tf.reduce_sum(right, axis=1)
        loss = -tf.reduce_mean(each)
        if self._teacher is not None:
            known = tf.math.l2_normalize(self._teacher(views), 1)
            changed = cosines - tf.matmul(known, known, transpose_b=True)
            loss += KEEPING * tf.reduce_mean(changed * changed)
        return loss
