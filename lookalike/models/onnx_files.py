"""The files of a model that OpenVINO alone runs, gathered in one folder: ONNX, or its own format.

    model.onnx               the model as it was given
    (any name)               weights that the model keeps in files of their own
    model.xml, model.bin     instead of these, OpenVINO's format
    preprocessing.json       what was settled on (`onnx_preprocessing`)

ONNX is a message of protocol buffers. Only the names of those files are read from it here, by a
walk over the fields that can hold them; OpenVINO reads the rest.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from lookalike.errors import RequestError
from lookalike.models.onnx_preprocessing import SETTLED, Preprocessing

MODEL = "model.onnx"
IR = "model.xml"
"""A model in OpenVINO's format (intermediate representation); its weights are in a .bin beside."""

PREPARED = "prepared"
"""Folder beside a model for what is found out about it."""

# Numbers of the fields on the way from a model to its tensors: graph; node, initializer, sparse
# initializer; attribute; tensor, graph, tensors, graphs of an attribute; values of a sparse tensor.
_WAYS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
_DEEPEST = 64


def gather(model: Path, settled: Preprocessing, workdir: Path) -> Path:
    """Gather the files of a model in a new folder below `workdir`, by links.

    Raises:
        RequestError: An .onnx file is none, or a file of the weights is missing or lies outside
            the model's folder.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="onnx-", dir=workdir))
    kept, name = (IR, f"{model.stem}.bin") if model.suffix.lower() == ".xml" else (MODEL, "")
    weights = {"model.bin": name} if name else {name: name for name in external_files(model)}
    for link, name in weights.items():
        target = model.parent / name
        if not target.is_file():
            raise RequestError(
                f"{model} keeps weights in a file {name} beside it, which is not there; put it "
                "there, or give a folder or an archive that has both"
            )
        link_to(folder / link, target)
    link_to(folder / kept, model)
    (folder / SETTLED).write_text(settled.to_json(), encoding="utf-8")
    return folder


def model_in(folder: Path) -> Path | None:
    """The model's file in a folder as `gather` makes it; None where there is none."""
    return next((folder / one for one in (MODEL, IR) if (folder / one).is_file()), None)


def external_files(model: Path) -> list[str]:
    """Names of the files, relative to the model's folder, that hold weights of it.

    Raises:
        RequestError: The model cannot be read, is no ONNX file, or names a file elsewhere.
    """
    try:
        with open(model, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise ValueError("it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                names = sorted(set(_locations(data, 0, len(data), "model", 0)))
    except OSError as error:
        raise RequestError(f"cannot read {model}: {error.strerror or error}") from error
    except (ValueError, IndexError) as error:
        raise RequestError(
            f"{model} is no ONNX file, or is cut short or damaged ({error})"
        ) from error
    for name in names:
        path = PurePosixPath(name)
        taken = path.parts[:1] in ((MODEL,), (SETTLED,), (PREPARED,))
        if not name or path.is_absolute() or ".." in path.parts or "\\" in name or taken:
            raise RequestError(
                f"{model} keeps weights in a file {name!r}, and a model may only name files below "
                "its own folder; export it again"
            )
    return names


def _locations(data: mmap.mmap, start: int, end: int, kind: str, depth: int) -> Iterator[str]:
    """The values of key "location" among the entries of external data."""
    if depth > _DEEPEST:
        raise ValueError("it is nested too deep")
    if kind == "external":
        fields = {number: data[a:b] for number, a, b in _fields(data, start, end)}
        if fields.get(1) == b"location":
            yield fields.get(2, b"").decode("utf-8")
        return
    for number, a, b in _fields(data, start, end):
        if way := _WAYS[kind].get(number):
            yield from _locations(data, a, b, way, depth + 1)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message that have a length: number, start and end of each."""
    while start < end:
        tag, start = _varint(data, start, end)
        number, wire = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field has no number")
        if wire == 2:
            length, start = _varint(data, start, end)
            if length > end - start:
                raise ValueError("a field ends behind its message")
            yield number, start, start + length
            start += length
        elif wire == 0:
            _, start = _varint(data, start, end)
        elif wire in (1, 5):
            start += 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field has type {wire}")
    if start > end:
        raise ValueError("a field ends behind its message")


def _varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if start >= end or shift > 63:
            raise ValueError("a number is cut short")
        byte = data[start]
        value |= (byte & 127) << shift
        start += 1
        if byte < 128:
            return value, start
        shift += 7


def link_to(link: Path, target: Path) -> None:
    """Make a link to a file, and the folders that it lies in; one that is there stays."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(target.resolve())
