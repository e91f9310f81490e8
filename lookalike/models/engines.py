"""Engines: what runs a model. TensorFlow is the reference, OpenVINO a faster one.

Of ONNX files and its own, which TensorFlow cannot read, OpenVINO in float32 is the reference.

Engines differ in rounding. Where an engine's vectors are within `golden.BOUND` of the reference's,
it is a matter of speed alone: nothing of it enters fingerprints, and stores and queries made with
either go together. Where they are not, which only a configuration that names the engine can bring
about, the engine is part of what a vector means: of the fingerprint, and of every query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.errors import RequestError, one_line
from lookalike.models import openvino_engine, prepared
from lookalike.models.golden import BOUND
from lookalike.models.openvino_engine import OpenVINOModel
from lookalike.models.prepared import Prepared
from lookalike.models.saved_model import (
    FrozenModel,
    Model,
    ModelInfo,
    configure_threads,
    uses_gpu,
)

REFERENCE = "tensorflow"
ENGINES = (REFERENCE, "openvino", "openvino-bf16")
CHOICES = ("auto", *ENGINES)
"""What a configuration may ask for."""

INSTALL = "pip install 'lookalike[openvino]'"


@dataclass(frozen=True)
class Engine:
    """What runs one model.

    Attributes:
        name: One of `ENGINES`.
        cosine: Lowest cosine of its vectors to TensorFlow's over the golden pictures.
    """

    name: str = REFERENCE
    cosine: float = 1.0

    @property
    def deviates(self) -> bool:
        """Whether its vectors are so far from the reference's that they must not be mixed."""
        return not self.cosine >= BOUND

    def to_json(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {"name": self.name} if self.name == REFERENCE else vars(self).copy()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Engine:
        """Undo `to_json`."""
        return cls(data["name"], data.get("cosine", 1.0))

    def __str__(self) -> str:
        """As a person reads it: "openvino (cosine 1.00000 to tensorflow)"."""
        agrees = "" if self.name == REFERENCE else f" (cosine {self.cosine:.5f} to tensorflow)"
        return f"{self.name}{agrees}"


def choose(
    asked: str,
    model: str,
    found: Prepared,
    *,
    lengths: bool = False,
    say: Callable[[str], None] = print,
) -> Engine:
    """Choose what runs a model.

    OpenVINO runs what it can run as TensorFlow does, being faster and lighter to start; TensorFlow
    the rest, and everything where it has a GPU.

    Args:
        asked: One of `CHOICES`.
        model: What to call the model in messages.
        found: What is known of it.
        lengths: Whether vectors' lengths matter too, and not their directions alone.
        say: Takes a line on what a person should know, such as why an engine is not used.

    Raises:
        RequestError: The engine asked for by name is not installed or cannot run the model.
    """
    if found.info.reference == "python":  # it is run where pictures are decoded
        return Engine("python")
    alone = found.info.reference != REFERENCE
    if asked == REFERENCE and alone:
        say(f"{model} is not run by {REFERENCE}, but by {found.info.reference}")
        asked = "auto"
    if asked == REFERENCE:
        return Engine()
    named = asked != "auto"
    if named:
        check_available(asked)
    elif alone:
        return Engine(found.info.reference)
    elif openvino_engine.missing() or uses_gpu():
        return Engine()
    name = asked if named else "openvino"
    near = found.agreements.get(name)
    if near is None:
        reason = f"OpenVINO cannot run {model}: {found.trouble or 'it was not tried'}"
        if named:
            raise RequestError(f"engine {asked}: {reason}; use engine: tensorflow")
        say(f"warning: {reason}; engine tensorflow is used")
        return Engine()
    engine = Engine(name, near.with_lengths if lengths else near.cosine)
    if not engine.deviates:
        return engine
    far = (
        f"warning: engine {name} gives {model} vectors with a cosine of {engine.cosine:.5f} to "
        f"those of {found.info.reference} (bound {BOUND}); "
    )
    if named:
        say(far + "they go with vectors of this engine alone")
        return engine
    say(far + "engine tensorflow is used")
    return Engine()


def open_model(
    folder: Path, info: ModelInfo, engine: Engine, key: str = "", threads: int | None = None
) -> Model:
    """Load a model to be run by the engine chosen for it.

    TensorFlow takes the place of an engine that changes nothing where that one cannot run it: it is
    not installed on this machine, is too old for the converted model, or there is none.

    Args:
        folder: The model's, with the files of `prepared`.
        info: How it is called.
        engine: What is to run it.
        key: Of the prepared files; "" where there are none.
        threads: Of this process; None leaves that to the engine. (TensorFlow keeps what it has
            where it has been started.)

    Raises:
        RequestError: The model cannot be loaded, or its vectors need an engine that is not here.
    """
    if engine.deviates:
        check_available(engine.name)
    graph = prepared.graph_file(folder, key)
    by_tensorflow = engine.name == info.reference == REFERENCE
    if not by_tensorflow and graph and not openvino_engine.missing():
        # Where bfloat16 changes nothing, neither does float32.
        bf16 = engine.name == "openvino-bf16" and openvino_engine.has_bf16()
        golden = None if engine.deviates else prepared.golden_vectors(folder, key)
        try:
            return OpenVINOModel(graph, info, bf16=bf16, threads=threads, golden=golden)
        except RuntimeError as error:
            if engine.deviates:
                raise RequestError(
                    f"engine {engine.name} cannot run {graph}: {one_line(error)}; use the version "
                    "of OpenVINO that the store was made with, or index again"
                ) from error
    elif engine.deviates:
        raise RequestError(
            f"{folder} has no model for engine {engine.name}, which made the vectors; index again"
        )
    if info.reference == "openvino":
        check_available(info.reference)
        raise RequestError(
            f"{info.reference} cannot run the model in {folder}, which nothing else does; use the "
            "version of OpenVINO that the store was made with, or index again"
        )
    if threads is not None:
        configure_threads(threads)
    return FrozenModel(folder, info)


def check_available(name: str) -> None:
    """Check that an engine can run on this machine.

    Raises:
        RequestError: It is not installed, or the processor lacks what it needs.
    """
    if name == REFERENCE:
        return
    missing = openvino_engine.missing()
    if missing:
        raise RequestError(f"engine {name} needs OpenVINO ({missing}); {INSTALL}")
    if name == "openvino-bf16" and not openvino_engine.has_bf16():
        raise RequestError(
            "engine openvino-bf16 needs a processor that calculates in bfloat16, and this one does "
            "not; use a machine that does, or index with engine: auto"
        )
