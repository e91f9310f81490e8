"""Small ONNX models, and TensorFlow's with the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Shape = Sequence[int | str]


def weights() -> dict[str, Any]:
    """Of two convolutions of 3 by 3, in the order (out, in, height, width)."""
    random = np.random.default_rng(7)
    return {
        "w1": random.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "b1": random.normal(0, 0.3, 8).astype(np.float32),
        "w2": random.normal(0, 0.2, (16, 8, 3, 3)).astype(np.float32),
        "b2": random.normal(0, 0.2, 16).astype(np.float32),
    }


def save_model(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    constants: Mapping[str, Any] | None = None,
    dtype: int = TensorProto.FLOAT,
    gives: int = TensorProto.FLOAT,
    external: str = "",
) -> Path:
    """Write a graph as an ONNX file, checked; weights in a file beside it where one is named."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, gives, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {}
    if external:
        (path.parent / external).parent.mkdir(exist_ok=True)
        kept = {"save_as_external_data": True, "location": external, "size_threshold": 0}
    onnx.save_model(model, str(path), **kept)
    return path


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def convolutions(path: Path, batch: int | str = "batch", external: str = "") -> Path:
    """A small network: (batch, 3, 32, 40) floats to a map, its mean (batch, 16), and tokens."""
    nodes = [
        node("Conv", "pixel_values w1 b1", "c1", strides=[2, 2]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2 b2", "c2", strides=[2, 2]),
        node("Relu", "c2", "map"),
        node("GlobalAveragePool", "map", "pool"),
        node("Flatten", "pool", "embedding"),
    ]
    outputs = {"map": [batch, 16, 7, 9], "embedding": [batch, 16]}
    inputs = {"pixel_values": [batch, 3, 32, 40]}
    return save_model(path, nodes, inputs, outputs, weights(), external=external)


def same_in_tensorflow(folder: Path) -> str:
    """The same network as a SavedModel, which takes values of 0 to 1."""
    from lookalike.models.quiet_tf import tf

    w = weights()

    def call(images: Any) -> Any:
        values = (images - tf.constant(MEAN)) / tf.constant(STD)
        for one in ("1", "2"):
            kernel = np.transpose(w[f"w{one}"], (2, 3, 1, 0))
            values = tf.nn.relu(tf.nn.conv2d(values, kernel, 2, "VALID") + w[f"b{one}"])
        return tf.reduce_mean(values, [1, 2])

    module = tf.Module()
    module.__call__ = tf.function(call, [tf.TensorSpec([None, 32, 40, 3], tf.float32)])
    tf.saved_model.save(module, str(folder))
    return str(folder)
