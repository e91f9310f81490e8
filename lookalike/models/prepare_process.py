"""The process that makes models ready, started by `preparation`: `prepared` says what it writes.

It is sent a list of tasks, and has no answer but that they are done (`child`).
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.errors import RequestError, one_line
from lookalike.models import (
    child,
    onnx_files,
    onnx_graph,
    openvino_engine,
    prepared,
    python_files,
    python_inspection,
)
from lookalike.models.golden import golden_pictures
from lookalike.models.handles import BUILTINS, marker_of
from lookalike.models.inspection import inspect
from lookalike.models.preparation import Task
from lookalike.models.prepared import Prepared
from lookalike.models.saved_model import FrozenModel, ModelInfo
from lookalike.models.shipped import SHIPPED


def main(tasks: list[dict[str, Any]]) -> None:
    """Do the tasks that `preparation` sends."""
    for one in tasks:
        size = one.pop("input_size")
        make_ready(Task(**one, input_size=size and (size[0], size[1])))


def make_ready(task: Task) -> None:
    """Export the model if it is a shipped one, find out all about it, and write that down."""
    with _files_for(Path(task.target) / prepared.FOLDER) as scratch:
        found = _made_ready(task, Path(task.model), scratch / task.key)
        text = json.dumps(found.to_json(), indent=1)
        (scratch / f"{task.key}.json").write_text(text, encoding="utf-8")


def _made_ready(task: Task, model: Path, stem: Path) -> Prepared:
    """What is found out about a model, by its kind; other files are written beside `stem`."""
    if marker_of(model) == python_files.MARKER:
        if task.signature or task.output:
            raise RequestError(f"{task.builtin} has no signatures and outputs; remove these keys")
        function = python_files.parse(task.builtin, task.options, task.input_size)
        return python_inspection.make_ready(function, stem)
    if task.builtin and not marker_of(model):
        _export(task.builtin, model)
    if onnx_files.model_in(model):
        if task.signature:
            raise RequestError(f"only SavedModels have signatures; remove {task.signature!r}")
        return onnx_graph.make_ready(model, task.output, task.input_size, stem)
    if task.builtin and not (task.signature or task.output or task.input_size):
        info = SHIPPED[task.builtin.partition(":")[2]].info
    else:
        info = inspect(
            model, signature=task.signature, output=task.output, input_size=task.input_size
        )
        info = replace(info, rewritten=not task.builtin)
    return compare(model, info, stem)


def compare(model: Path, info: ModelInfo, stem: Path) -> Prepared:
    """Convert a model, and compare the engines that can run it with TensorFlow."""
    reference = FrozenModel(model, info)
    expected = reference(golden_pictures(info.input_size))
    np.save(stem.with_suffix(".npy"), expected)
    if missing := openvino_engine.missing():
        return Prepared(info, trouble=missing)
    version = openvino_engine.version()
    path = stem.with_suffix(".xml")
    try:
        openvino_engine.convert(reference.graph(), path)
        near = openvino_engine.agreements(path, info, expected)
    except Exception as error:  # OpenVINO knows not every graph, and raises whatever it meets
        path.unlink(missing_ok=True)
        path.with_suffix(".bin").unlink(missing_ok=True)
        return Prepared(info, version, trouble=one_line(error))
    return Prepared(info, version, near)


def _export(handle: str, folder: Path) -> None:
    module, _, part = BUILTINS[handle.partition(":")[2]][0].partition(":")
    descriptor: Any = importlib.import_module(module)
    descriptor = getattr(descriptor, part) if part else descriptor
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="export-", dir=folder.parent) as scratch:
        made = Path(scratch) / "model"
        descriptor.export(made)
        folder.mkdir(exist_ok=True)
        # What marks a model comes last, and whoever else exports it writes the same.
        for name in sorted(os.listdir(made), key=lambda name: (name == "saved_model.pb", name)):
            if (made / name).is_dir():
                shutil.copytree(made / name, folder / name, dirs_exist_ok=True)
            else:
                os.replace(made / name, folder / name)


@contextmanager
def _files_for(folder: Path) -> Iterator[Path]:
    """A scratch folder whose files are moved into `folder` in the end, the .json last."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prepare-", dir=folder) as scratch:
        yield Path(scratch)
        for name in sorted(os.listdir(scratch), key=lambda name: (name.endswith(".json"), name)):
            os.replace(Path(scratch) / name, folder / name)


if __name__ == "__main__":
    child.serve(main)
