"""Which engine runs a model: those that agree with TensorFlow race, on the launching machine.

Agreement is measured on golden pictures, which come with this package: photographs' like, drawings,
text, dark, saturated and flat ones. An engine that is not near enough on every one of them is out
(`engines.BOUND`); of the others and TensorFlow, the fastest in a second's trial is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError, one_line
from lookalike.models import openvino_engine
from lookalike.models.engines import BOUND, REFERENCE, Engine, check_available
from lookalike.models.openvino_engine import OpenVINOModel
from lookalike.models.saved_model import FrozenModel, Model, ModelInfo, has_gpu, threads_in_use

CHOICES = ("auto", "tensorflow", "openvino", "openvino-bf16")

# Of engines that are nearly as fast as the fastest, the first. In float32 OpenVINO is as exact, and
# spares a worker seconds of start-up and the better part of its memory; bfloat16 must pay its way.
_PREFERENCE = ("openvino", REFERENCE, "openvino-bf16")
_TIE = 0.95
_TRIAL_SECONDS = 1.0
_TRIAL_ROUNDS = 3  # at least


def choose(
    asked: str,
    folder: Path,
    info: ModelInfo,
    target: Path,
    *,
    lengths: bool = False,
    say: Callable[[str], None] = print,
) -> Engine:
    """Choose what runs a model; TensorFlow, unless another engine is asked for or is better.

    Args:
        asked: One of `CHOICES`.
        folder: The SavedModel.
        info: How it is called.
        target: Where a converted model goes: a name ending in .xml, in a folder that is there.
        lengths: Whether vectors' lengths matter too, and not their directions alone.
        say: Takes a line on what a person should know, such as why an engine is not used.

    Returns:
        The choice; its `path` is `target` where that was written, "" else.

    Raises:
        RequestError: The engine asked for by name is not installed or cannot run the model.
    """
    if asked == REFERENCE:
        return Engine()
    named = asked != "auto"
    if named:
        check_available(asked)
    if not named and (openvino_engine.missing() or has_gpu()):
        return Engine()
    pictures = golden_pictures(info.input_size)
    reference = FrozenModel(folder, info)
    expected = reference(pictures)
    try:
        openvino_engine.convert(reference.graph(), target)
        names = [asked] if named else _candidates()
        models = {name: _open(name, target, info) for name in names}
        cosines = {
            name: agreement(model(pictures), expected, lengths) for name, model in models.items()
        }
    except Exception as error:  # OpenVINO knows not every graph, and raises whatever it meets
        reason = f"OpenVINO cannot run the model in {folder}: {one_line(error)}"
        if named:
            raise RequestError(f"engine {asked}: {reason}; use engine: tensorflow") from error
        say(f"warning: {reason}; engine tensorflow is used")
        return Engine()
    if named:
        if not cosines[asked] >= BOUND:
            say(
                f"warning: engine {asked} gives vectors with a cosine of {cosines[asked]:.5f} to "
                f"those of tensorflow (bound {BOUND}); they go with vectors of this engine alone"
            )
        return Engine(asked, cosines[asked], path=str(target))
    near = {name: model for name, model in models.items() if cosines[name] >= BOUND}
    if not near:
        best = max(cosines, key=lambda name: cosines[name])
        say(
            f"warning: engine {best} gives vectors with a cosine of {cosines[best]:.5f} to those "
            f"of tensorflow (bound {BOUND}); engine tensorflow is used"
        )
        return Engine()
    rates = _race({REFERENCE: reference, **near}, pictures)
    fast = [name for name, rate in rates.items() if rate >= _TIE * max(rates.values())]
    name = min(fast, key=_PREFERENCE.index)
    if name == REFERENCE:
        return Engine(rates=rates)
    return Engine(name, cosines[name], rates, str(target))


def golden_pictures(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The pictures that engines are compared on, prepared for a model: (16, h, w, 3) uint8."""
    from lookalike.pictures.images import prepare

    folder = resources.files("lookalike.models") / "golden"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return np.stack([prepare(f.read_bytes(), f.name, sizes=[size]).arrays[0] for f in files])


def agreement(
    vectors: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], lengths: bool = False
) -> float:
    """Lowest cosine between rows of two (n, d) arrays; of `lengths`, their lowest ratio too.

    Two zero rows agree; a zero row and another, or one that is not finite, do not (0).
    """
    a, b = vectors.astype(np.float64), reference.astype(np.float64)
    if not np.isfinite(a).all():
        return 0.0
    along, across = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    both = along * across
    cosines = np.divide((a * b).sum(axis=1), both, out=np.zeros(len(a)), where=both > 0)
    cosines[(along == 0) & (across == 0)] = 1
    if lengths:
        shorter, longer = np.minimum(along, across), np.maximum(along, across)
        ratios = np.divide(shorter, longer, out=np.ones(len(a)), where=longer > 0)
        cosines = np.minimum(cosines, ratios)
    return float(min(cosines.min(), 1.0))


def _candidates() -> list[str]:
    return ["openvino", "openvino-bf16"] if openvino_engine.has_bf16() else ["openvino"]


def _open(name: str, path: Path, info: ModelInfo) -> Model:
    return OpenVINOModel(path, info, bf16=name == "openvino-bf16", threads=threads_in_use())


def _race(models: Mapping[str, Model], pictures: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Images/s of each, taking turns for about a second; all have been called before."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    began = perf_counter()
    rounds = 0
    while rounds < _TRIAL_ROUNDS or perf_counter() - began < _TRIAL_SECONDS:
        for name, model in models.items():
            start = perf_counter()
            model(pictures)
            seconds[name].append(perf_counter() - start)
        rounds += 1
    return {name: float(f"{len(pictures) / median(spent):.3g}") for name, spent in seconds.items()}
