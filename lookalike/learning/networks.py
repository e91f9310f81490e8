"""Networks to train, in Keras, and what becomes of them: modules that a SavedModel is made of.

photo      that of `builtin:photo` in float32; its batch normalisation is folded into the
           convolutions and so stays as it was. The first stages, which see edges and textures,
           stay as they are.
scratch    a small residual network (He et al., "Deep Residual Learning for Image Recognition",
           CVPR 2016) of one block per stage, at 96 x 96, that a CPU trains in minutes
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.models import photo
from lookalike.models.quiet_tf import tf

FIRST_BLOCK = 11
"""Of `builtin:photo`'s 21 blocks the first that learns: the last four at 14 x 14, all at 7 x 7."""
_SIZE, _WIDTHS, _DIM = 64, (32, 64, 128, 256), 256
_FAINT = 4.0  # the contrast, of 255, that is not made much of
_MOMENTUM = 0.95  # of batch statistics: runs are short
_IMAGES = tf.TensorSpec([None, _SIZE, _SIZE, 3], tf.uint8, name="images")

Vectors = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class Network(ABC):
    """A network to train.

    Attributes:
        model: The Keras model: (B, *size, 3) float32 of 0 to 255 -> (B, dim) float32.
        size: Height and width of its pictures.
    """

    size: tuple[int, int]
    dim: int

    def __init__(self, model: Any) -> None:
        """Take a Keras model."""
        self.model = model
        self._call = tf.function(
            lambda images: model(tf.cast(images, tf.float32), training=False), autograph=False
        )

    def vectors(self, batches: Iterator[Pixels]) -> Vectors:
        """Describe pictures as the network is now: some (n, *size, 3) at a time -> (rows, dim)."""
        return np.concatenate([self._call(tf.constant(batch)).numpy() for batch in batches])

    @abstractmethod
    def modules(self) -> Iterator[tuple[str, Any]]:
        """What may be exported, by its name, the first preferred: called with uint8 pictures."""


@dataclass(frozen=True)
class _Pair:
    """A convolution of `builtin:photo`, and the Keras layer that learns it."""

    layer: photo.Layer
    learned: Any


class PhotoNetwork(Network):
    """The network of `builtin:photo`, of which the last blocks learn."""

    size, dim = photo.INPUT_SIZE, photo.DIM

    def __init__(self) -> None:
        """Build it with the installed weights.

        Raises:
            RequestError: They are not installed, or Keras runs on something else than TensorFlow.
        """
        keras = _keras()
        images = keras.Input((*self.size, 3))
        tensor = entrance = (images - 127.0) / 128.0
        self._pairs = []
        for layer in photo.shipped_layers():
            if layer.name.endswith("expand") or layer.name == "0.depthwise":
                entrance = tensor
            shared = {
                "strides": layer.stride,
                "padding": "same",
                "data_format": "channels_last",
                "trainable": _learns(layer),
                "name": layer.name.replace(".", "_"),
            }
            kernel = layer.weights.shape[0]
            if layer.depthwise:
                learned = keras.layers.DepthwiseConv2D(kernel, **shared)
            else:
                learned = keras.layers.Conv2D(layer.weights.shape[3], kernel, **shared)
            tensor = learned(tensor)
            learned.set_weights([layer.weights, layer.bias])
            if not layer.linear:
                tensor = keras.layers.ReLU(6.0)(tensor)
            if layer.skips:
                tensor = tensor + entrance
            self._pairs.append(_Pair(layer, learned))
        pooled = keras.layers.GlobalAveragePooling2D(data_format="channels_last")(tensor)
        super().__init__(keras.Model(images, pooled))

    def modules(self) -> Iterator[tuple[str, Any]]:
        """In whole numbers, on the grids of `builtin:photo`, as that is fast; else in float32."""
        convolutions = []
        for pair in self._pairs:
            weights, bias = (one.astype(np.float64) for one in pair.learned.get_weights())
            convolutions.append(replace(pair.layer, weights=weights, bias=bias))
        yield "8 bits", photo.Photo(convolutions)
        yield "float32", photo.Photo(convolutions, grid=None)


def _learns(layer: photo.Layer) -> bool:
    block = layer.name.partition(".")[0]
    return block == "head" or (block.isdecimal() and int(block) >= FIRST_BLOCK)


class ScratchNetwork(Network):
    """A small network that knows nothing yet."""

    size, dim = (_SIZE, _SIZE), _DIM

    def __init__(self, seed: int) -> None:
        """Build it with random weights, the same for the same seed.

        Raises:
            RequestError: Keras runs on something else than TensorFlow.
        """
        keras = _keras()
        drawn = np.random.default_rng(seed)

        def convolve(tensor: Any, width: int, stride: int, kernel: int = 3) -> Any:
            initial = keras.initializers.HeNormal(seed=int(drawn.integers(1 << 31)))
            tensor = keras.layers.Conv2D(
                width,
                kernel,
                strides=stride,
                padding="same",
                use_bias=False,
                kernel_initializer=initial,
                data_format="channels_last",
            )(tensor)
            return keras.layers.BatchNormalization(momentum=_MOMENTUM)(tensor)

        images = keras.Input((*self.size, 3))
        relu = keras.layers.ReLU
        # Each picture about its own mean colour and in its own contrast: without that it takes
        # many times as many steps to see anything but colours.
        mean = keras.ops.mean(images, axis=(1, 2), keepdims=True)
        spread = keras.ops.std(images, axis=(1, 2, 3), keepdims=True)
        tensor = relu()(convolve((images - mean) / (spread + _FAINT), _WIDTHS[0], 2))
        for width in _WIDTHS[1:]:
            inside = convolve(relu()(convolve(tensor, width, 2)), width, 1)
            tensor = relu()(inside + convolve(tensor, width, 2, kernel=1))
        initial = keras.initializers.GlorotUniform(seed=int(drawn.integers(1 << 31)))
        flat = keras.layers.Flatten(data_format="channels_last")(tensor)
        joined = keras.layers.Dense(_DIM, use_bias=False, kernel_initializer=initial)(flat)
        # Vectors that point all one way cannot be told apart; these are spread about their mean.
        centred = keras.layers.BatchNormalization(momentum=_MOMENTUM, center=False, scale=False)
        super().__init__(keras.Model(images, centred(joined)))

    def modules(self) -> Iterator[tuple[str, Any]]:
        """In float32."""
        yield "float32", _Module(self.model)


class _Module(tf.Module):  # type: ignore[misc]
    """A Keras model as a TF-Hub style callable."""

    def __init__(self, model: Any) -> None:
        super().__init__(name="trained")
        self._model = model

    @tf.function(input_signature=[_IMAGES], autograph=False)  # type: ignore[untyped-decorator]
    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Describe images: (B, 64, 64, 3) uint8 RGB -> (B, 256) float32."""
        return self._model(tf.cast(images, tf.float32), training=False)


def _keras() -> Any:
    """Keras, which comes with TensorFlow, and which the environment can exchange.

    Raises:
        RequestError: It is an old one, or runs on something else.
    """
    version, backend = tf.keras.__version__, tf.keras.backend.backend()
    if version.startswith("2."):
        raise RequestError(
            f"Keras {version} is in use (TF_USE_LEGACY_KERAS), and training needs Keras 3; unset "
            "TF_USE_LEGACY_KERAS"
        )
    if backend != "tensorflow":
        raise RequestError(
            f"Keras is set to run on {backend} (KERAS_BACKEND, or ~/.keras/keras.json), and the "
            "model is to be TensorFlow's; run with KERAS_BACKEND=tensorflow"
        )
    return tf.keras
