"""Engines: what runs a model. TensorFlow is the reference, OpenVINO a faster one.

Engines differ in rounding. Where an engine's vectors are within BOUND of the reference's, it is a
matter of speed alone: nothing of it enters fingerprints, and stores and queries made with either go
together. Where they are not, which only a configuration that names the engine can bring about, the
engine is part of what a vector means: of the fingerprint, and of every query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lookalike.errors import RequestError
from lookalike.models import openvino_engine
from lookalike.models.openvino_engine import OpenVINOModel
from lookalike.models.saved_model import FrozenModel, Model, ModelInfo, configure_threads

REFERENCE = "tensorflow"
ENGINES = (REFERENCE, "openvino", "openvino-bf16")
BOUND = 0.999
"""Lowest cosine to the reference, over the golden pictures, of an engine that changes nothing."""

INSTALL = "pip install 'lookalike[openvino]'"


@dataclass(frozen=True)
class Engine:
    """What runs one model, and how that was found.

    Attributes:
        name: One of `ENGINES`.
        cosine: Lowest cosine of its vectors to TensorFlow's over the golden pictures.
        rates: Images/s of the engines that were tried against each other, by name.
        path: The converted model (.xml), absolute or relative to the store; "" where there is none.
            It belongs to a run, and is in no manifest.
    """

    name: str = REFERENCE
    cosine: float = 1.0
    rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    path: str = ""

    @property
    def deviates(self) -> bool:
        """Whether its vectors are so far from the reference's that they must not be mixed."""
        return not self.cosine >= BOUND

    def to_json(self) -> dict[str, Any]:
        """As the manifest holds it."""
        if self.name == REFERENCE and not self.rates:
            return {"name": self.name}
        rates = {"images_per_s": dict(self.rates)} if self.rates else {}
        return {"name": self.name, "cosine": self.cosine, **rates}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Engine:
        """Undo `to_json`."""
        return cls(data["name"], data.get("cosine", 1.0), data.get("images_per_s", {}))

    def __str__(self) -> str:
        """As a person reads it: "openvino (cosine 1.00000; images/s: tensorflow 98, …)"."""
        parts = [] if self.name == REFERENCE else [f"cosine {self.cosine:.5f} to tensorflow"]
        if self.rates:
            rates = ", ".join(f"{name} {rate:.0f}" for name, rate in self.rates.items())
            parts.append(f"images/s: {rates}")
        return f"{self.name} ({'; '.join(parts)})" if parts else self.name


def open_model(
    folder: Path, info: ModelInfo, engine: Engine, store: Path, threads: int | None = None
) -> Model:
    """Load a model to be run by the engine chosen for it.

    TensorFlow takes the place of an engine that changes nothing where that one is not installed, as
    may be on another machine, and where there is no converted model, as for a query.

    Args:
        folder: The SavedModel.
        info: How it is called.
        engine: What is to run it.
        store: What `engine.path` is relative to.
        threads: Of this process; None leaves that to the engine. (TensorFlow keeps what it has
            where it has been started.)

    Raises:
        RequestError: The model cannot be loaded, or its vectors need an engine that is not here.
    """
    if engine.deviates:
        check_available(engine.name)
    elif not engine.path or openvino_engine.missing():
        if threads is not None:
            configure_threads(threads)
        return FrozenModel(folder, info)
    # Where bfloat16 changes nothing, neither does float32.
    bf16 = engine.name == "openvino-bf16" and openvino_engine.has_bf16()
    if engine.path:
        return OpenVINOModel(store / engine.path, info, bf16=bf16, threads=threads)
    with TemporaryDirectory(prefix="lookalike-") as work:
        path = Path(work) / "model.xml"
        openvino_engine.convert(FrozenModel(folder, info).graph(), path)
        return OpenVINOModel(path, info, bf16=bf16, threads=threads)


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
