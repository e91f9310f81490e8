"""Beam's own RunInference with a hand-written handler of a TF-Hub model, as its users run it.

The runner is Beam's FnApiRunner with worker processes, as --direct_running_mode=multi_processing
has it. DirectRunner would look for Prism first, a download that runs workers as threads of one
process.
"""

from __future__ import annotations

import pickle
import shlex
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.ml.inference.base import (
    KeyedModelHandler,
    ModelHandler,
    PredictionResult,
    RunInference,
)
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from benchmarks.task import HAND_BATCH, Lot, Task, Timing, pillow, timing_of
from lookalike.distances import Vectors

Example = tuple[Any, ...]
"""One picture as the models take it: an array per input."""


def hand_written(task: Task) -> tuple[Timing, Vectors]:
    """`hub.load` in the handler, Pillow in a Map."""
    lean = replace(task, files=(), config=b"")  # goes into a step of a pipeline; Beam prints it too
    # The mode's own command, but for the quotes: it fails where Python's path has a space.
    command = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"
    runner = FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))
    options = PipelineOptions([f"--direct_num_workers={task.processes}"])
    with TemporaryDirectory() as kept:
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            _ = (
                pipeline
                | "Paths" >> beam.Create([str(path) for path in task.files])
                | "Spread" >> beam.Reshuffle()
                | "Decode" >> beam.Map(partial(read_with_pillow, task.inputs))
                | "Embed" >> RunInference(KeyedModelHandler(HubHandler(lean)))
                | "Keep" >> beam.ParDo(_Keep(Path(kept)))
            )
        # One per process, which is all that FnApiRunner cuts its input into.
        bundles: list[_Bundle] = [pickle.loads(path.read_bytes()) for path in Path(kept).iterdir()]
    rows = {str(path): row for row, path in enumerate(task.files)}
    blocks = [
        np.full((len(rows), len(block[0])), np.nan, np.float32) for block in bundles[0].blocks
    ]
    for bundle in bundles:
        where = [rows[path] for path in bundle.paths]
        for block, found in zip(blocks, bundle.blocks, strict=True):
            block[where] = found
    return timing_of([_lots(bundle) for bundle in bundles]), task.join(blocks)


def read_with_pillow(inputs: Sequence[tuple[tuple[int, int], str]], path: str) -> tuple[str, Any]:
    """As Beam's samples do it."""
    with FileSystems.open(path) as file:
        data = file.read()
    pixels = [pillow(data, size) for size, _ in inputs]
    return path, tuple(
        array.astype(np.float32) / 255 if dtype == "float32" else array
        for array, (_, dtype) in zip(pixels, inputs, strict=True)
    )


class HubHandler(ModelHandler[Example, PredictionResult, Any]):
    """What its documentation asks to be written for a model that it has no handler for."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._task = task

    def load_model(self) -> Any:
        """Load it, once per process."""
        from benchmarks.way_hub import HubModels

        return HubModels(self._task)

    def run_inference(
        self, batch: Sequence[Example], model: Any, inference_args: Any = None
    ) -> Iterable[PredictionResult]:
        """Stack the batch and call the model."""
        blocks = model([np.stack(arrays) for arrays in zip(*batch, strict=True)])
        return map(PredictionResult, batch, zip(*blocks, strict=True))

    def get_num_bytes(self, batch: Sequence[Example]) -> int:
        """Beam's own would pickle the batch to tell."""
        return sum(array.nbytes for example in batch for array in example)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """Batches of one size, where Beam would try sizes out."""
        return {"min_batch_size": HAND_BATCH, "max_batch_size": HAND_BATCH}


class _Bundle(NamedTuple):
    """What one bundle gave: the pictures, when each came, and an (n, d) array per model."""

    paths: Sequence[str]
    times: Sequence[float]
    blocks: list[Any]


class _Keep(beam.DoFn):
    """Keeps (path, vector) in memory, and when each came; written after the last, for the check."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def start_bundle(self) -> None:
        self._kept: list[tuple[str, float, Any]] = []

    def process(self, result: tuple[str, PredictionResult]) -> None:
        path, prediction = result
        self._kept.append((path, time(), prediction.inference))

    def finish_bundle(self) -> None:
        if self._kept:
            paths, times, rows = zip(*self._kept, strict=True)
            kept = _Bundle(paths, times, [np.stack(block) for block in zip(*rows, strict=True)])
            (self._out / f"{uuid.uuid4().hex}.pickle").write_bytes(pickle.dumps(kept))


def _lots(bundle: _Bundle) -> list[Lot]:
    """A process's lots are its batches."""
    times = sorted(bundle.times)
    lots = [times[start : start + HAND_BATCH] for start in range(0, len(times), HAND_BATCH)]
    return [(lot[-1], len(lot)) for lot in lots]
