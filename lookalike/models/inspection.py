"""How a model is to be called: found out once, on the launching machine.

What is understood, tried in this order unless the configuration names a signature:

1. a TF2 reusable SavedModel, called as `model(images, training=False)` or `model(images)`;
2. the signature `image_feature_vector`, `feature_vector`, `default`, `serving_default` or `serve`
   (the TF1 Hub format has the first or third), or the only one there is.

The model takes images (batch, height, width, 3), RGB. A float32 input gets values in [0, 1], the
TF-Hub convention; a uint8 input gets the bytes as they are. The batch dimension must be open. The
output is (batch, d), or a feature map (batch, h, w, d), which is averaged over h and w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError, one_line
from lookalike.models.saved_model import ModelInfo, call, compile_vectors, load, outputs_of, scaled

DEFAULT_SIZE = (224, 224)
"""Input size where neither the model nor the configuration gives one."""

_SIGNATURES = ("image_feature_vector", "feature_vector", "default", "serving_default", "serve")
USUAL_OUTPUTS = (
    *("default", "feature_vector", "image_feature_vector", "pooled", "pooled_output"),
    *("image_embeds", "pooler_output", "embedding", "embeddings", "features"),
    *("output_0", "output"),
)
"""Names of outputs that are taken where nothing names one, the first there is."""


def inspect(
    folder: Path,
    *,
    signature: str | None = None,
    output: str | None = None,
    input_size: tuple[int, int] | None = None,
) -> ModelInfo:
    """Find out how to call a model, and try it on two pictures.

    Args:
        folder: Holds `saved_model.pb`.
        signature: Signature to call; None chooses (see the module's text).
        output: Key of the output to use; None takes the only one, or the first there is of
            `USUAL_OUTPUTS`.
        input_size: (height, width), for a model that takes any; None for 224 by 224.

    Raises:
        RequestError: The model cannot be loaded, is no image model, contradicts an argument, fails
            on an image, or gives vectors that are not finite, not repeatable, or dependent on the
            other images of their batch.
    """
    loaded = load(folder)
    name = f"the model in {folder}"
    signature = _choose_signature(loaded, signature, name)
    specs = _image_inputs(loaded, signature, name)
    size, assumed, dtype = _choose_input(specs, input_size, name)
    info = ModelInfo(size, 0, signature, "", dtype, size_assumed=assumed)

    shape = (2, *size, 3)
    pictures = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    pictures[0] = 0
    info, outputs = _first_call(loaded, info, pictures, name)
    info = replace(info, output=_choose_output(outputs, output, name))
    raw = outputs[info.output]
    if not (raw.dtype.is_floating and len(raw.shape) in (2, 4) and raw.shape[0] == 2):
        raise RequestError(
            f"{name} gives {raw.dtype.name} {tuple(raw.shape)} for 2 images as {_called(info)}, "
            f"expected floats (2, d) or (2, h, w, d); its outputs: {_listed(outputs)}"
        )
    info = replace(info, dim=int(raw.shape[-1]), pooled=len(raw.shape) == 4)
    return _check(loaded, info, pictures, name)


def _check(loaded: Any, info: ModelInfo, pictures: npt.NDArray[np.uint8], name: str) -> ModelInfo:
    """Compare runs of a model that must agree; tells whether it can be frozen."""
    plain = compile_vectors(loaded, replace(info, frozen=False))
    expected = plain(pictures)
    if not np.isfinite(expected).all():
        raise RequestError(f"{name} gives values that are not finite for a plain picture")
    if not agree(plain(pictures), expected):
        raise RequestError(
            f"{name} gives another vector each time it is called (dropout or other noise is on); "
            "export it for inference"
        )
    if not agree(plain(pictures[1:]), expected[1:]):
        raise RequestError(
            f"{name} gives a picture another vector when other pictures share its batch (batch "
            "statistics are on); export it for inference"
        )
    try:
        frozen = compile_vectors(loaded, info)(pictures)
    except Exception:  # the conversion knows not every graph, and raises whatever it meets
        return replace(info, frozen=False)
    return replace(info, frozen=agree(frozen, expected))


def agree(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Whether vectors are the same but for rounding."""
    return bool(np.abs(a - b).max(initial=0) <= 1e-3 * np.abs(b).max(initial=0))


def _first_call(
    loaded: Any, info: ModelInfo, pictures: npt.NDArray[np.uint8], name: str
) -> tuple[ModelInfo, dict[str, Any]]:
    """Call a model for the first time; finds out whether it takes `training=False`."""
    from lookalike.models.quiet_tf import tf

    images = scaled(tf.constant(pictures), info)
    attempts = [info] if info.signature else [replace(info, training=True), info]
    causes: list[Exception] = []
    for attempt in attempts:
        try:
            return attempt, outputs_of(call(loaded, attempt, images))
        except Exception as error:  # no such argument; or an operation failed, each in its way
            causes.append(error)
    height, width = info.input_size
    raise RequestError(
        f"{name} fails on an image of height {height} and width {width} as {_called(info)}: "
        f"{one_line(causes[-1])}"
    ) from causes[-1]


def _choose_signature(loaded: Any, wanted: str | None, name: str) -> str:
    """The signature to call; "" for the model's own call."""
    known: list[str] = sorted(getattr(loaded, "signatures", None) or {})
    if wanted:
        if wanted not in known:
            raise RequestError(
                f"{name} has no signature {wanted!r}; it has: {', '.join(known) or 'none'}"
            )
        return wanted
    if _own_inputs(loaded):
        return ""
    if len(known) == 1:
        return known[0]
    for candidate in _SIGNATURES:
        if candidate in known:
            return candidate
    raise RequestError(
        f"{name} is not called with an image, and none of its signatures is a usual one; "
        f"name one of: {', '.join(known) or '(it has none)'}"
    )


def _own_inputs(loaded: Any) -> list[Any]:
    """What a TF2 reusable SavedModel's own call takes as its first argument, by trace."""
    from lookalike.models.quiet_tf import tf

    traces = getattr(getattr(loaded, "__call__", None), "concrete_functions", ())  # noqa: B004
    firsts = [args[0] for args, _ in (t.structured_input_signature for t in traces) if args]
    return [first for first in firsts if isinstance(first, tf.TensorSpec)]


def _image_inputs(loaded: Any, signature: str, name: str) -> list[Any]:
    """The possible image inputs: one of a signature, one per trace of the model's own call."""
    if not signature:
        return _own_inputs(loaded)
    inputs = loaded.signatures[signature].structured_input_signature[1]
    if len(inputs) != 1:
        raise RequestError(
            f"{name} wants {len(inputs)} inputs as signature {signature!r} "
            f"({', '.join(sorted(inputs))}), expected one, the images"
        )
    return list(inputs.values())


def _choose_input(
    specs: Sequence[Any], wanted: tuple[int, int] | None, name: str
) -> tuple[tuple[int, int], bool, str]:
    """Input size, whether it is only the default, and dtype."""
    usable: list[tuple[list[int | None], str]] = []
    for spec in specs:
        shape: list[int | None] = [None] * 4 if spec.shape.rank is None else spec.shape.as_list()
        if len(shape) == 4 and shape[3] in (3, None) and spec.dtype.name in ("float32", "uint8"):
            usable.append((shape, spec.dtype.name))
    if not usable:
        given = "; ".join(sorted({f"{spec.dtype.name} {spec.shape}" for spec in specs}))
        raise RequestError(
            f"{name} takes {given}, expected float32 or uint8 (batch, height, width, 3)"
        )
    if all(shape[0] is not None for shape, _ in usable):
        raise RequestError(
            f"{name} takes batches of exactly {usable[0][0][0]}; export it with an open batch "
            "dimension"
        )
    usable = [(shape, dtype) for shape, dtype in usable if shape[0] is None]
    usable.sort(key=lambda each: each[1])  # float32 before uint8
    if wanted:
        for (_, height, width, _), dtype in usable:
            if height in (wanted[0], None) and width in (wanted[1], None):
                return (int(wanted[0]), int(wanted[1])), False, dtype
        sizes = ", ".join(sorted({f"{shape[1]}x{shape[2]}" for shape, _ in usable}))
        raise RequestError(
            f"{name} takes images of height x width {sizes}, not {wanted[0]}x{wanted[1]} as "
            "configured; leave input_size out"
        )
    fixed = {(h, w): dtype for (_, h, w, _), dtype in usable if h is not None and w is not None}
    if len(fixed) == 1:
        ((size, dtype),) = fixed.items()
        return size, False, dtype
    for (_, height, width, _), dtype in usable:
        if None in (height, width):
            return (height or DEFAULT_SIZE[0], width or DEFAULT_SIZE[1]), True, dtype
    sizes = ", ".join(f"{height}x{width}" for height, width in sorted(fixed))
    raise RequestError(f"{name} takes several image sizes ({sizes}); set input_size to one of them")


def _choose_output(outputs: Mapping[str, Any], wanted: str | None, name: str) -> str:
    if wanted:
        if wanted not in outputs:
            raise RequestError(f"{name} has no output {wanted!r}; it has: {_listed(outputs)}")
        return wanted
    if len(outputs) == 1:
        return next(iter(outputs))
    for candidate in USUAL_OUTPUTS:
        if candidate in outputs:
            return candidate
    raise RequestError(
        f"{name} has several outputs, none with a usual name; set output to one of: "
        f"{_listed(outputs)}"
    )


def _listed(outputs: Mapping[str, Any]) -> str:
    texts = [
        f"{key or '(unnamed)'} {value.dtype.name} {tuple(value.shape)}"
        for key, value in sorted(outputs.items())
    ]
    return ", ".join(texts) or "none"


def _called(info: ModelInfo) -> str:
    return f"signature {info.signature!r}" if info.signature else "its own call"
