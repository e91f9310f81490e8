"""What people write by hand: `hub.load`, called batch by batch with a tf.data input."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from time import time
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.task import HAND_BATCH, Task, Timing, timing_of
from lookalike.distances import Vectors
from lookalike.models import saved_model as models
from lookalike.models.quiet_tf import tf

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports pkg_resources
    import tensorflow_hub as hub


class HubModels:
    """Models as `hub.load` gives them, their variables as they are."""

    def __init__(self, task: Task) -> None:
        self._features, self._inputs = task.features, task.inputs
        self._loaded = [hub.load(str(folder)) for folder in task.by_hand]

    def __call__(self, batches: Sequence[Any]) -> list[npt.NDArray[np.float32]]:
        """From one (n, h, w, 3) tensor per input to one (n, d) array per model."""
        blocks = []
        for feature, model in zip(self._features, self._loaded, strict=True):
            info = feature.info
            batch = batches[self._inputs.index((info.input_size, info.input_dtype))]
            output = models.outputs_of(models.call(model, info, batch))[info.output]
            block = tf.cast(output, tf.float32)
            blocks.append((tf.reduce_mean(block, axis=[1, 2]) if info.pooled else block).numpy())
        return blocks


def tf_data(task: Task) -> tuple[Timing, Vectors]:
    """Embed everything in one process with all threads.

    The model is loaded and called once before the clock starts.
    """
    model = HubModels(task)
    model([tf.zeros((HAND_BATCH, *size, 3), dtype) for size, dtype in task.inputs])

    def read(path: Any) -> tuple[Any, ...]:
        picture = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        return tuple(_fit(picture, *one) for one in task.inputs)

    dataset = (
        tf.data.Dataset.from_tensor_slices([str(path) for path in task.files])
        .map(read, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(HAND_BATCH)
        .prefetch(tf.data.AUTOTUNE)
    )
    began = time()
    found = [model(batches) for batches in dataset]
    ended = time()
    blocks = [np.concatenate(block) for block in zip(*found, strict=True)]
    return timing_of([[(began, 0), (ended, len(blocks[0]))]]), task.join(blocks)


def _fit(picture: Any, size: tuple[int, int], dtype: str) -> Any:
    resized = tf.image.resize(picture, size, antialias=True)
    return resized / 255.0 if dtype == "float32" else tf.cast(tf.round(resized), tf.uint8)
