"""The input of an ONNX model's graph: what is done to pictures before the model gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lookalike.errors import RequestError, one_line
from lookalike.models import openvino_engine
from lookalike.models.inspection import DEFAULT_SIZE
from lookalike.models.onnx_preprocessing import Preprocessing
from lookalike.models.openvino_engine import integers, shown, type_of

FLOATS = ("f16", "bf16", "f32", "f64")
_OPEN = -1
_PLAIN = (Preprocessing.rescale, Preprocessing.mean, Preprocessing.std)
EXPORT = "export it with an open batch axis (torch.onnx.export: dynamic_axes or dynamic_shapes)"


@dataclass(frozen=True)
class Input:
    """What a model takes.

    Attributes:
        size: Height and width of the pictures.
        layout: One of `LAYOUTS`.
        fixed_batch: Images that the file was exported for; 0 where that is open.
        assumed: Whether the size is only a default.
        unit_range: Whether the model is given values of 0 to 1 as they are.
    """

    size: tuple[int, int]
    layout: str
    fixed_batch: int
    assumed: bool
    unit_range: bool


def put_before(
    model: Any, settled: Preprocessing, wanted: tuple[int, int] | None, name: str
) -> Input:
    """Put what is done to pictures before the model, and open its batch axis."""
    inputs = [*map(shown, model.inputs)]
    if len(inputs) != 1:
        raise RequestError(
            f"{name} takes {len(inputs)} inputs ({', '.join(inputs)}), expected one, the images; "
            "export the part that takes images alone"
        )
    port = model.input(0)
    dtype, rank = type_of(port), port.partial_shape.rank
    axes = [4] if rank.is_dynamic else [rank.get_length()]
    if axes != [4] or dtype not in (*FLOATS, "u8"):
        raise RequestError(
            f"{name} takes {inputs[0]}, which are no images: expected floats or u8 of four axes, "
            "(batch, 3, height, width) or (batch, height, width, 3)"
        )
    dims = [_OPEN] * 4
    if not rank.is_dynamic:
        dims = [_OPEN if d.is_dynamic else d.get_length() for d in port.partial_shape]
    layout = _layout(dims, settled.layout, f"{name} takes {inputs[0]}")
    first = 2 if layout == "NCHW" else 1
    sides = (dims[first], dims[first + 1])
    size = (
        wanted
        or settled.input_size
        or (
            DEFAULT_SIZE[0] if sides[0] == _OPEN else sides[0],
            DEFAULT_SIZE[1] if sides[1] == _OPEN else sides[1],
        )
    )
    if any(side not in (_OPEN, asked) for side, asked in zip(sides, size, strict=True)):
        said = "as configured" if wanted else "as its preprocessing says"
        raise RequestError(
            f"{name} takes images of height x width {sides[0]}x{sides[1]}, not "
            f"{size[0]}x{size[1]} {said}; set input_size to what it takes".replace("-1", "any")
        )
    if dtype == "u8" and (settled.mean, settled.std) != (Preprocessing.mean, Preprocessing.std):
        raise RequestError(f"{name} takes {inputs[0]}, values of 0 to 255, and so no mean and std")
    shape = [_OPEN, 3, *size] if layout == "NCHW" else [_OPEN, *size, 3]
    try:
        model.reshape(shape)
    except Exception as error:
        remedy = EXPORT if dims[0] != _OPEN else "set input_size to one that it was made for"
        raise RequestError(
            f"{name} cannot take batches of any size of {size[0]}x{size[1]} images; {remedy}: "
            f"{one_line(error)}"
        ) from error
    pictures = _insert(model, size, dtype, layout, settled)
    assumed = _OPEN in sides and not (wanted or settled.input_size)
    plain = (settled.rescale, settled.mean, settled.std) == _PLAIN and dtype != "u8"
    return Input(pictures, layout, max(dims[0], 0), assumed, plain)


def _layout(dims: Sequence[int], wanted: str, takes: str) -> str:
    """Where the channels are."""
    first, last = dims[1] in (3, _OPEN), dims[3] in (3, _OPEN)
    if wanted:
        if first if wanted == "NCHW" else last:
            return wanted
        raise RequestError(f"{takes}, and no three channels where layout: {wanted} has them")
    if dims[1] == 3 and dims[3] == 3:
        raise RequestError(f"{takes}; set layout to NCHW or NHWC, as both may be meant")
    if not (first or last):
        raise RequestError(f"{takes}, and none of its axes are the three channels of a picture")
    return "NHWC" if dims[3] == 3 or not first else "NCHW"


def _insert(
    model: Any, size: tuple[int, int], dtype: str, layout: str, settled: Preprocessing
) -> tuple[int, int]:
    """Let the model take uint8 (batch, height, width, 3) pictures; returns their height, width."""
    ov, ops = openvino_engine.library(), openvino_engine.operations()
    height, width = (round(side / settled.crop) for side in size)
    given = ops.parameter([_OPEN, height, width, 3], ov.Type.u8, name="images")
    values = given
    if (height, width) != size:
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        begin, end = [top, left], [top + size[0], left + size[1]]
        values = ops.slice(
            values,
            integers(begin),
            integers(end),
            integers([1, 1]),
            integers([1, 2]),
        )
    if settled.channels == "bgr":
        values = ops.gather(values, integers([2, 1, 0]), integers(3))
    if dtype != "u8":
        std = np.array(settled.std, np.float64)
        factor = (settled.rescale / std).astype(np.float32)
        shift = (-np.array(settled.mean) / std).astype(np.float32)
        values = ops.convert(values, ov.Type.f32)
        values = ops.add(ops.multiply(values, ops.constant(factor)), ops.constant(shift))
    if layout == "NCHW":
        values = ops.transpose(values, integers([0, 3, 1, 2]))
    if dtype not in ("f32", "u8"):
        values = ops.convert(values, model.input(0).element_type)
    old = model.get_parameters()[0]
    old.output(0).replace(values.output(0))
    model.add_parameters([given])
    model.remove_parameter(old)
    model.validate_nodes_and_infer_types()
    return height, width
