"""What a network is trained for: vectors near each other where pictures are of one kind.

With labels: the normalised softmax over one proxy for each kind (Zhai & Wu, "Classification is a
Strong Baseline for Deep Metric Learning", BMVC 2019). Without: two views of one picture find each
other among those of others (Chen et al., "A Simple Framework for Contrastive Learning of Visual
Representations", ICML 2020).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.models.quiet_tf import tf

TEMPERATURE = 0.1
PROXY_RATE = 0.01  # of learning: proxies are far from where they belong, the network is not

Vectors = npt.NDArray[np.float32]


class Proxies:
    """One direction for each kind, learned beside the network."""

    def __init__(self, initial: Vectors) -> None:
        """Begin with these directions, (kinds, dim)."""
        self._proxies = tf.Variable(initial, name="proxies")
        self.variables = [self._proxies]

    def loss(self, vectors: Any, kinds: Any) -> Any:
        """Of unit vectors (B, dim) of these kinds (B,)."""
        scores = tf.matmul(vectors, tf.math.l2_normalize(self._proxies, 1), transpose_b=True)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(kinds, scores / TEMPERATURE)
        return tf.reduce_mean(each)


class Contrast:
    """Views of the same picture, against those of the others of a batch."""

    variables: tuple[Any, ...] = ()

    def loss(self, vectors: Any, kinds: Any) -> Any:
        """Of unit vectors (B, dim), at least two of each of these kinds (B,)."""
        itself = tf.eye(tf.shape(vectors)[0])
        scores = tf.matmul(vectors, vectors, transpose_b=True) / TEMPERATURE - 1e9 * itself
        right = tf.cast(kinds[:, None] == kinds[None], tf.float32) - itself
        likely = scores - tf.reduce_logsumexp(scores, axis=1, keepdims=True)
        each = tf.reduce_sum(right * likely, axis=1) / tf.reduce_sum(right, axis=1)
        return -tf.reduce_mean(each)
