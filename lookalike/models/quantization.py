"""Another network in whole numbers of 8 bits, after training: its graph put on grids.

A graph of OpenVINO's, from pictures to vectors, gets FakeQuantize operations before its
convolutions and matrix products, and weights of 8 bits in them. OpenVINO calculates in integers
between these where the processor can, and in float32 else, to the same vectors: steps are powers of
two, as in `photo`, so that every sum is exact in any order. (What is no sum, such as a swish, may
differ in its last bit, and be rounded the other way where it is next to half-way between points.)
The steps come from pictures: the power of two with the least squared error.

What stays in float32: layers that see the pictures themselves (their input has more than 8 bits,
and costs little; it and the weights are put on grids fine enough for sums to be exact), layers
whose input has no places, such as those of squeeze-and-excite (they cost nothing, and channels are
weighed by what they say), and whatever lies between layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.models import openvino_engine
from lookalike.models.grids import (
    POINTS,
    Grid,
    best_grid,
    between,
    power_of_two,
    weight_steps,
    whole_weights,
)

_KINDS = ("Convolution", "GroupConvolution", "MatMul")
_SAMPLE = 1024  # numbers of each tensor and picture
_ENTRANCE_BITS = 11  # of what layers in float32 take, beside the sign; 8 of weights: 24 in a sum


@dataclass(frozen=True)
class Layer:
    """An operation with weights.

    Attributes:
        node: OpenVINO's.
        source: Port that gives its input.
        entrance: Whether no other layer lies between it and the pictures.
    """

    node: Any
    source: Any
    entrance: bool


@dataclass
class _Seen:
    """Numbers that a tensor holds, over some pictures: the range of all, and a sample."""

    lowest: float = 0.0
    highest: float = 0.0
    sample: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def add(self, batch: npt.NDArray[np.float32]) -> None:
        self.lowest = min(self.lowest, float(batch.min()))
        self.highest = max(self.highest, float(batch.max()))
        rows = batch.reshape(len(batch), -1)
        every = max(1, rows.shape[1] // _SAMPLE) | 1  # odd: rows of a picture are even in length
        self.sample.append(rows[:, ::every].ravel())


def layers_of(model: Any, name: str) -> list[Layer]:
    """The layers of a model to be put on grids, in the order they are calculated.

    Raises:
        RequestError: There is none that could be calculated in 8 bits, or they are already.
    """
    if openvino_engine.on_grids(model):
        raise RequestError(f"{name} is quantised already")
    layers = list(_layers(model))
    if all(layer.entrance for layer in layers):
        raise RequestError(
            f"{name} has no layers to quantise: no convolutions or matrix products with weights of "
            "their own, behind another such layer"
        )
    return layers


def quantise(model: Any, layers: Sequence[Layer], batches: Iterable[npt.NDArray[np.uint8]]) -> None:
    """Put a model on grids, in place.

    Args:
        model: The graph.
        layers: What `layers_of` it gave.
        batches: Pictures (n, height, width, 3) as the model takes them, to calibrate on.
    """
    inside = {_key(layer.source) for layer in layers if not layer.entrance}
    ports = list({_key(layer.source): layer.source for layer in layers}.values())
    seen = _observe(model, ports, batches)
    steps = {}
    for port, numbers in zip(ports, seen, strict=True):
        takers = [one for one in port.get_target_inputs() if _type(one.get_node()) != "Result"]
        if _key(port) in inside:
            sample = np.concatenate(numbers.sample)
            grid = best_grid(numbers.lowest, numbers.highest, sample)
            steps[_key(port)], node = grid.step, _quantised(port, grid)
        else:
            largest = max(numbers.highest, -numbers.lowest)
            step = power_of_two(largest / 2**_ENTRANCE_BITS)
            steps[_key(port)], node = step, _rounded(port, step)
        for taker in takers:
            taker.replace_source_output(node.output(0))
    for layer in layers:
        _weights(layer, steps[_key(layer.source)])
    model.validate_nodes_and_infer_types()


def _layers(model: Any) -> Iterator[Layer]:
    behind: set[str] = set()  # names of nodes behind a layer
    for node in model.get_ordered_ops():
        sources = [one.get_source_output() for one in node.inputs()]
        fed = any(one.get_node().get_friendly_name() in behind for one in sources)
        layer = _type(node) in _KINDS and _has_weights(node, sources)
        if layer or fed:
            behind.add(node.get_friendly_name())
        if layer and _has_places(sources[0]):
            yield Layer(node, sources[0], not fed)


def _has_weights(node: Any, sources: Sequence[Any]) -> bool:
    weights = sources[1].get_node()
    matrix = _type(node) != "MatMul" or len(sources[1].get_shape()) == 2
    return _type(weights) == "Constant" and matrix


def _has_places(port: Any) -> bool:
    """Whether a tensor has more than one number for each picture and channel."""
    sides = list(port.get_partial_shape())[1:]
    rest = sides[1:] if len(sides) == 3 else sides[:-1]  # (channel, h, w); (tokens, channel)
    return any(side.is_dynamic or side.get_length() > 1 for side in rest)


def _key(port: Any) -> tuple[str, int]:
    return port.get_node().get_friendly_name(), port.get_index()


def _type(node: Any) -> str:
    return str(node.get_type_name())


def _observe(
    model: Any, ports: Sequence[Any], batches: Iterable[npt.NDArray[np.uint8]]
) -> list[_Seen]:
    """What the tensor of each port holds when the model is run."""
    ov, ops = openvino_engine.library(), openvino_engine.operations()
    results = [ops.result(port) for port in ports]
    probe = ov.Model(results, model.get_parameters(), "probe")
    run = ov.Core().compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    seen = [_Seen() for _ in ports]
    for batch in batches:
        found = run(batch)
        for number, one in enumerate(seen):
            one.add(found[number])
    return seen


def _quantised(port: Any, grid: Grid) -> Any:
    """The tensor of a port on its grid."""
    ops = openvino_engine.operations()
    low, high = (ops.constant(np.float32(end)) for end in grid.ends)
    return ops.fake_quantize(port, low, high, low, high, POINTS)


def _rounded(port: Any, step: float) -> Any:
    """The tensor of a port in multiples of a step, in float32."""
    ops = openvino_engine.operations()
    whole = ops.round(ops.multiply(port, ops.constant(np.float32(1 / step))), "half_to_even")
    return ops.multiply(whole, ops.constant(np.float32(step)))


def _weights(layer: Layer, step: float) -> None:
    """Put a layer's weights, and the bias behind it, on their grids; `step` is its input's."""
    ov, ops = openvino_engine.library(), openvino_engine.operations()
    kind, port = _type(layer.node), layer.node.input(1)
    weights = port.get_source_output().get_node().get_data().astype(np.float64)
    outputs = {"Convolution": (0,), "GroupConvolution": (0, 1)}.get(kind)
    if outputs is None:
        outputs = (0,) if layer.node.get_attributes()["transpose_b"] else (1,)
    axes = tuple(axis for axis in range(weights.ndim) if axis not in outputs)
    largest = np.abs(weights).max(axis=axes, keepdims=True)
    added, bias = _bias(layer.node, largest.size)
    of_each = np.zeros(largest.size) if bias is None else bias.reshape(-1)
    steps = weight_steps(largest, of_each.reshape(largest.shape), step)
    whole = whole_weights(weights, steps)
    if layer.entrance:  # constants, as what it calculates is not to be in integers
        node = ops.constant((whole * steps).astype(np.float32))
    else:
        factor = ops.constant(steps.astype(np.float32))
        node = ops.multiply(ops.convert(ops.constant(whole), ov.Type.f32), factor)
    port.replace_source_output(node.output(0))
    if bias is not None:
        moved = between(of_each, steps.reshape(-1) * step).reshape(bias.shape)
        added.replace_source_output(ops.constant(moved.astype(np.float32)).output(0))


def _bias(node: Any, outputs: int) -> tuple[Any, npt.NDArray[np.float64] | None]:
    """The input that holds what is added to a layer's outputs, and that; None where it is not."""
    takers = list(node.output(0).get_target_inputs())
    if len(takers) != 1 or _type(takers[0].get_node()) != "Add":
        return None, None
    other = takers[0].get_node().input(1 - takers[0].get_index())
    constant = other.get_source_output().get_node()
    if _type(constant) != "Constant":
        return None, None
    bias: npt.NDArray[np.float64] = constant.get_data().astype(np.float64)
    return (other, bias) if bias.size == outputs else (None, None)
