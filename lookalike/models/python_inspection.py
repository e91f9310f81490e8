"""Trying a function of the user's own, before anything is indexed with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.errors import RequestError
from lookalike.images.decoder_process import bounded
from lookalike.images.functions import Call, Function, FunctionFailedError, load, vector_of
from lookalike.images.limits import ImageLimits
from lookalike.models.golden import golden_pictures
from lookalike.models.prepared import Prepared
from lookalike.models.saved_model import ModelInfo


def _check_again(call: Call, function: Function, picture: Any, vector: Any) -> None:
    """Check that a function gives the same vector a second time."""
    try:
        if np.array_equal(vector_of(call, function, picture), vector, equal_nan=True):
            return
    except FunctionFailedError:  # as different as can be
        pass
    raise RequestError(
        f"{function} gives another vector each time it is called with the same picture; give its "
        "random numbers a seed"
    )


def make_ready(function: Function, stem: Path) -> Prepared:
    """Call a function with the golden pictures, and write its vectors beside `stem`.

    Raises:
        RequestError: It cannot be loaded, gives a vector for none of them, gives vectors of several
            lengths, or another one each time.
    """
    call = load(function)
    pictures = golden_pictures(function.size)
    vectors: list[Any] = []
    failure: FunctionFailedError | None = None
    for picture in pictures:
        try:
            with bounded(ImageLimits()):
                vectors.append(vector_of(call, function, picture))
        except MemoryError:
            raise RequestError(
                f"{function} needs more than {ImageLimits().max_memory >> 20} MiB for one picture"
            ) from None
        except FunctionFailedError as error:
            failure = error
            continue
        if not function.dim:
            function = replace(function, dim=len(vectors[-1]))
            _check_again(call, function, picture, vectors[-1])
    if not vectors:
        raise RequestError(f"of {len(pictures)} pictures that it is tried on, at each: {failure}")
    if not any(np.isfinite(one).all() and one.any() for one in vectors):
        raise RequestError(
            f"{function} gives a vector that is zero or not finite for each of {len(pictures)} "
            "pictures that it is tried on"
        )
    np.save(stem.with_suffix(".npy"), np.stack(vectors))
    info = ModelInfo(
        function.size,
        function.dim,
        input_dtype="uint8",
        reference="python",
        function=f"{function.module}:{function.name}",
        params=function.params,
    )
    return Prepared(info)
