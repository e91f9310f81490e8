"""What a handle is: what it takes and gives, how fast each engine runs it, under which licence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError, one_line
from lookalike.images.functions import FunctionFailedError, vector_of
from lookalike.images.functions import load as load_function
from lookalike.models import engines, openvino_engine, python_files
from lookalike.models.engines import Engine, open_model
from lookalike.models.features import Feature, function_of
from lookalike.models.golden import golden_pictures
from lookalike.models.handles import marker_of
from lookalike.models.onnx_files import IR, MODEL, model_in
from lookalike.models.openvino_engine import shown
from lookalike.models.prepared import Prepared, read
from lookalike.models.resolving import FeatureConfig, resolve_features
from lookalike.models.saved_model import load
from lookalike.models.shipped import SHIPPED

_SECONDS = 1.0
_KINDS = {
    "saved_model.pb": "SavedModel",
    MODEL: "ONNX",
    IR: "OpenVINO",
    python_files.MARKER: "Python function",
}


def probe(
    configured: FeatureConfig, work: Path, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Find out what a feature's handle is, and measure it.

    Returns:
        JSON-able: `handle`, `kind`, `inputs` and `outputs` (of the file, as it names them),
        `input_size`, `signature`, `output`, `dim`, `fingerprint`, `licence` ("" if unknown), and
        `engines`: a list of `name`, `images_per_second` and `cosine` (lowest to the reference's
        vectors), or `name` and `trouble`.

    Raises:
        RequestError: There is no such model, or it cannot be used.
    """
    (feature,) = resolve_features([configured], work, say)
    folder = work / feature.folder
    marker = marker_of(folder)
    inputs, outputs = _ports(folder, marker, feature)
    return {
        "handle": feature.handle,
        "kind": _KINDS[marker],
        "inputs": inputs,
        "outputs": outputs,
        "input_size": [*feature.info.input_size],
        "signature": feature.info.signature,
        "output": feature.info.output,
        "dim": feature.info.dim,
        "fingerprint": feature.fingerprint,
        "licence": licence_of(feature.handle, folder),
        "engines": list(_engines(folder, feature)),
    }


def _ports(folder: Path, marker: str, feature: Feature) -> tuple[list[str], list[str]]:
    """The inputs and outputs that a file has, used or not."""
    height, width = feature.info.input_size
    if path := model_in(folder):
        model = openvino_engine.library().Core().read_model(path.resolve())
        return [*map(shown, model.inputs)], [*map(shown, model.outputs)]
    if marker == python_files.MARKER:
        return [f"picture uint8 [{height},{width},3]"], [f"numbers [{feature.info.dim}]"]
    loaded = load(folder)
    inputs, outputs = [], []
    for name, signature in sorted((getattr(loaded, "signatures", None) or {}).items()):
        taken = signature.structured_input_signature[1]
        inputs += [f"{name}: {key} {_spec(one)}" for key, one in sorted(taken.items())]
        given = sorted(signature.structured_outputs.items())
        outputs += [f"{name}: {key} {_spec(one)}" for key, one in given]
    if not feature.info.signature:
        range_ = "0 to 1" if feature.info.input_dtype == "float32" else "0 to 255"
        inputs.insert(0, f"call: {feature.info.input_dtype} [n,{height},{width},3], {range_}")
        outputs.insert(0, f"call: float32 [n,{feature.info.dim}]")
    return inputs, outputs


def _spec(one: Any) -> str:
    shape = "?" if one.shape.rank is None else str(one.shape.as_list()).replace("None", "?")
    return f"{one.dtype.name} {shape.replace(' ', '')}"


def _engines(folder: Path, feature: Feature) -> Iterator[dict[str, Any]]:
    """Each engine that can run the model, measured; the reference first."""
    found = read(folder, feature.prepared) or Prepared(feature.info)
    pictures = golden_pictures(feature.info.input_size)
    if function := function_of(feature.info):
        call = load_function(function)

        def one_by_one(batch: npt.NDArray[np.uint8]) -> None:
            for picture in batch:
                try:
                    vector_of(call, function, picture)
                except FunctionFailedError:  # it costs as much time
                    continue

        yield {"name": "python", "images_per_second": _speed(one_by_one, pictures), "cosine": 1.0}
        return
    reference = feature.info.reference
    for name in (reference, *(one for one in engines.ENGINES if one != reference)):
        near = 1.0 if name == reference else None
        if name != reference and name in found.agreements:
            near = found.agreements[name].cosine
        if near is None:
            if name != engines.REFERENCE and not openvino_engine.missing() and found.trouble:
                yield {"name": name, "trouble": found.trouble}
            continue
        try:
            engine = Engine(name, near)
            model = open_model(folder, feature.info, engine, feature.prepared)
        except RequestError as error:
            yield {"name": name, "trouble": one_line(error)}
            continue
        yield {"name": name, "images_per_second": _speed(model, pictures), "cosine": near}


def _speed(model: Callable[[npt.NDArray[np.uint8]], Any], pictures: npt.NDArray[np.uint8]) -> float:
    """Pictures per second, in batches of 16, after one that compiles."""
    model(pictures)
    began, done = perf_counter(), 0
    while (seconds := perf_counter() - began) < _SECONDS:
        model(pictures)
        done += len(pictures)
    return round(done / seconds, 1)


def licence_of(handle: str, folder: Path) -> str:
    """The licence that comes with a model, if one is told: "" where it is not.

    Told by a model card's head (`license: …` in README.md), by the first line of a file LICENSE, or
    by the package that a function's module belongs to.

    Args:
        handle: As it was asked for.
        folder: The model's, whose files may be links to where they come from.
    """
    scheme, _, name = handle.partition(":")
    if scheme == "builtin":
        return SHIPPED[name].licence if name in SHIPPED else ""
    if scheme == "python":
        top = name.partition(":")[0].partition(".")[0]
        for package in metadata.packages_distributions().get(top, []):
            about: Any = metadata.metadata(package)
            return str(about.get("License-Expression") or about.get("License") or "").split("\n")[0]
        return ""
    place = (folder / marker_of(folder)).resolve().parent
    places = [place, place.parent] if place.name == "onnx" else [place]
    for one in places:
        card = one / "README.md"
        if card.is_file():
            text = card.read_text(encoding="utf-8", errors="replace")
            head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
            told = re.search(r"^license:\s*(\S.*)$", head[1], re.MULTILINE) if head else None
            if told:
                return told[1].strip(" \"'")
        for path in sorted(one.iterdir()):
            if re.match(r"(?i)(licen[cs]e|copying)", path.name) and path.is_file():
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                return next((line.strip()[:80] for line in lines if line.strip()), "")
    return ""
