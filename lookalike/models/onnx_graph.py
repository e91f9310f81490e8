"""From an ONNX file, or OpenVINO's own, to a graph of uint8 pictures to vectors.

What the model expects of a picture (range of values, mean, deviation, order of channels and axes)
and what is made of its output (pooling) become part of the graph, so that whoever runs it needs to
know nothing of it. OpenVINO in float32 is the reference for such models: TensorFlow cannot read
them.

The model takes images alone: four axes, three channels, in floats or uint8. Its output is (batch,
d), a feature map of four axes, averaged over the picture, or a sequence of tokens (batch, t, d),
of which the configuration says how it is pooled.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.errors import RequestError, one_line
from lookalike.models import openvino_engine
from lookalike.models.golden import golden_pictures
from lookalike.models.inspection import USUAL_OUTPUTS, agree
from lookalike.models.onnx_files import model_in
from lookalike.models.onnx_input import EXPORT, FLOATS, Input, put_before
from lookalike.models.onnx_preprocessing import SETTLED, Preprocessing
from lookalike.models.openvino_engine import OpenVINOModel, integers, name_of, shown, type_of
from lookalike.models.prepared import Prepared
from lookalike.models.saved_model import ModelInfo


def make_ready(
    folder: Path, output: str | None, input_size: tuple[int, int] | None, stem: Path
) -> Prepared:
    """Find out how a model is called, and write it as `prepared` describes.

    Args:
        folder: Holds what `onnx_files.gather` gathered.
        output: Name of the output to use; None takes the only one, or a usual one.
        input_size: Height and width, for a model that takes any.
        stem: Path of the files to be written, without their suffixes.

    Returns:
        What is known of the model; the .xml, .bin and .npy beside `stem` are written.

    Raises:
        RequestError: OpenVINO is not installed, cannot read or run the model, the model is no image
            model, contradicts an argument, or gives vectors that are not finite, not repeatable, or
            dependent on the other images of their batch.
    """
    path = model_in(folder)
    if path is None:
        raise RequestError(f"{folder} holds no ONNX file and none of OpenVINO's")
    name = f"the model {path.resolve()}"
    if missing := openvino_engine.missing():
        raise RequestError(
            f"{name} is of a kind that OpenVINO runs ({missing}); pip install 'lookalike[openvino]'"
        )
    settled = Preprocessing.read(folder / SETTLED)
    model = _read(path, name)
    asked = put_before(model, settled, input_size, name)
    settled = replace(settled, layout=asked.layout)
    chosen = _output_of(model, output, name)
    shape = _shape_of(model, chosen, asked, name)
    model = _pooled(model, chosen, shape, settled, name)
    info = ModelInfo(
        asked.size,
        _dim(shape, settled),
        "",
        name_of(chosen),
        "uint8",
        size_assumed=asked.assumed,
        reference="openvino",
        unit_range=asked.unit_range,
    )
    path = stem.with_suffix(".xml")
    openvino_engine.save(model, path)
    exact = _checked(path, info, asked.fixed_batch, name)
    expected = exact(golden_pictures(asked.size))
    np.save(stem.with_suffix(".npy"), expected)
    near = openvino_engine.agreements(path, info, expected)
    return Prepared(info, openvino_engine.version(), near)


def _read(path: Path, name: str) -> Any:
    try:
        return openvino_engine.library().Core().read_model(path.resolve())
    except Exception as error:  # a damaged file, an operation that it does not know
        raise RequestError(f"{name}: OpenVINO cannot read it: {one_line(error)}") from error


def _output_of(model: Any, wanted: str | None, name: str) -> Any:
    """The port of the output to use."""
    ports = list(model.outputs)
    listed = ", ".join(map(shown, ports))
    if wanted:
        for port in ports:
            if wanted in port.get_names():
                return port
        raise RequestError(f"{name} has no output {wanted!r}; it has: {listed}")
    if len(ports) == 1:
        return ports[0]
    for usual in USUAL_OUTPUTS:
        for port in ports:
            if usual in port.get_names():
                return port
    raise RequestError(
        f"{name} has several outputs, none with a usual name; set output to one of: {listed}"
    )


def _shape_of(model: Any, chosen: Any, asked: Input, name: str) -> tuple[int, ...]:
    """The output's shape for two pictures, the batch left out: by running the model."""
    ov = openvino_engine.library()
    two = np.zeros((2, *asked.size, 3), np.uint8)
    try:
        compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        raw = compiled(two)[model.outputs.index(chosen)]
    except Exception as error:
        remedy = f"; {EXPORT}" if asked.fixed_batch else ""
        raise RequestError(
            f"{name} fails on two images of height {asked.size[0]} and width {asked.size[1]}"
            f"{remedy}: "
            f"{one_line(error)}"
        ) from error
    if type_of(chosen) not in FLOATS or raw.ndim not in (2, 3, 4) or raw.shape[0] != 2:
        batch = f"; {EXPORT}" if asked.fixed_batch else ""
        raise RequestError(
            f"{name} gives {name_of(chosen)} {type_of(chosen)} {raw.shape} for 2 images, "
            f"expected floats (2, d), (2, tokens, d) or a feature map of four axes{batch}"
        )
    return tuple(int(one) for one in raw.shape[1:])


def _pooled(
    model: Any, chosen: Any, shape: tuple[int, ...], settled: Preprocessing, name: str
) -> Any:
    """The model with that output alone, pooled to float32 (batch, dim)."""
    ov, ops = openvino_engine.library(), openvino_engine.operations()
    pooling = settled.pooling
    what = f"{name} gives {name_of(chosen)} ({', '.join(map(str, ('batch', *shape)))})"
    if len(shape) == 1 and pooling not in ("", "none"):
        raise RequestError(f"{what}, with nothing to pool; leave pooling: {pooling} out")
    if len(shape) == 2 and not pooling:
        raise RequestError(
            f"{what}, a vector for each of {shape[0]} tokens; set pooling to cls (the first one "
            "stands for the picture: ViT, DINOv2, CLIP) or to mean, or set output"
        )
    if len(shape) == 3 and pooling == "cls":
        raise RequestError(f"{what}, a feature map, which has no first token; set pooling: mean")
    values = ops.convert(chosen.get_node().input_value(0), ov.Type.f32)
    if pooling == "cls":
        values = ops.gather(values, integers(0), integers(1))
    elif len(shape) > 1 and pooling == "none":
        values = ops.reshape(values, integers([0, -1]), special_zero=True)
    elif len(shape) > 1:
        reduce = ops.reduce_max if pooling == "max" else ops.reduce_mean
        values = reduce(values, integers(_places(shape, settled)), keep_dims=False)
    return ov.Model([ops.result(values)], model.get_parameters(), "images_to_vectors")


def _places(shape: tuple[int, ...], settled: Preprocessing) -> list[int]:
    """The axes of tokens, or of height and width; feature maps have the layout of images."""
    if len(shape) == 2:
        return [1]
    return [1, 2] if settled.layout == "NHWC" else [2, 3]


def _dim(shape: tuple[int, ...], settled: Preprocessing) -> int:
    if settled.pooling == "none":
        return int(np.prod(shape))
    if len(shape) == 3 and settled.layout != "NHWC":
        return shape[0]
    return shape[-1]


def _checked(path: Path, info: ModelInfo, fixed_batch: int, name: str) -> OpenVINOModel:
    """The model as it was written, after runs that must agree."""
    try:
        model = OpenVINOModel(path, info, exact=True)
        pictures = np.random.default_rng(0).integers(0, 256, (3, *info.input_size, 3), np.uint8)
        pictures[0] = 0
        expected = model(pictures)
        again = model(pictures)
        alone = np.concatenate([model(one[None]) for one in pictures])
    except (RuntimeError, ValueError) as error:
        remedy = f"; {EXPORT}" if fixed_batch else ""
        raise RequestError(
            f"{name} fails on three images of height {info.input_size[0]} and width "
            f"{info.input_size[1]}{remedy}: {one_line(error)}"
        ) from error
    if not np.isfinite(expected).all():
        raise RequestError(f"{name} gives values that are not finite for a plain picture")
    if not agree(again, expected):
        raise RequestError(
            f"{name} gives another vector each time it is called (dropout or other noise is on); "
            "export it for inference: model.eval()"
        )
    if not agree(alone, expected):
        why = (
            "it was exported for batches of one"
            if fixed_batch
            else ("batch statistics are on, or it was quantised with one scale for a whole batch")
        )
        raise RequestError(
            f"{name} gives a picture another vector when other pictures share its batch ({why}); "
            + (EXPORT if fixed_batch else "export it for inference, or quantise it statically")
        )
    return model
