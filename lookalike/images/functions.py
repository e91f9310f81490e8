"""Features that are functions of the user's own: `python:module:function`, a picture to a vector.

They run where pictures are decoded, in a process that may crash, hang or take too much memory at
the cost of one picture. The module is imported as any other: from the packages installed, from
`PYTHONPATH`, or from the folder that the command was started in.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError, one_line

Call = Callable[[npt.NDArray[np.uint8]], Any]


@dataclass(frozen=True)
class Function:
    """One such feature.

    Attributes:
        module: Dotted name.
        name: Of the function in it.
        params: Its keyword arguments, as a JSON object.
        size: Height and width of the pictures that it gets.
        dim: Length of its vectors; 0 where that is not known yet.
    """

    module: str
    name: str
    params: str
    size: tuple[int, int]
    dim: int = 0

    def __str__(self) -> str:
        """The handle, without parameters."""
        return f"python:{self.module}:{self.name}"


class FunctionFailedError(Exception):
    """A function gave no vector for a picture."""


def find_modules() -> None:
    """Let modules be found in the current folder too, after all other places."""
    here = os.getcwd()
    if "" not in sys.path and here not in sys.path:
        sys.path.append(here)


def load(function: Function) -> Call:
    """Import a function, its parameters bound.

    Raises:
        RequestError: The module cannot be imported, or has no such function.
    """
    find_modules()
    try:
        module = importlib.import_module(function.module)
    except Exception as error:  # whatever the module's own code raises
        raise RequestError(
            f"{function}: the module {function.module} cannot be imported: {one_line(error)}; "
            "install it, start in its folder, or name that in PYTHONPATH"
        ) from error
    call = getattr(module, function.name, None)
    if not callable(call):
        known = [
            name
            for name, one in vars(module).items()
            if callable(one) and not name.startswith("_") and one.__module__ == module.__name__
        ]
        raise RequestError(
            f"{function}: the module {function.module} has no function {function.name}; it has: "
            f"{', '.join(known[:8]) or 'none'}"
        )
    params = json.loads(function.params)
    return lambda pixels: call(pixels, **params)


def vector_of(call: Call, function: Function, pixels: npt.NDArray[np.uint8]) -> Any:
    """A picture's vector: (dim,) float32, values as the function has them.

    Args:
        call: What `load` gave.
        function: Whose it is; a `dim` of 0 takes vectors of any length.
        pixels: (h, w, 3) uint8 of the function's size; it gets a copy.

    Raises:
        FunctionFailedError: It raises, or gives no vector of that length.
    """
    try:
        given = call(pixels.copy())
        vector = np.asarray(given, np.float32) if given is not None else None
    except MemoryError:
        raise
    except Exception as error:
        raise FunctionFailedError(
            f"{function} fails at it: {type(error).__name__}: {one_line(error)}"
        ) from error
    if vector is None or vector.ndim != 1 or not len(vector):
        what = "nothing" if vector is None else f"an array of shape {vector.shape}"
        raise FunctionFailedError(f"{function} gives {what}, expected one row of numbers")
    if function.dim not in (0, len(vector)):
        raise FunctionFailedError(
            f"{function} gives {len(vector)} numbers, expected {function.dim} as for other pictures"
        )
    return vector


class Functions:
    """Some functions, loaded, and the pictures that they need."""

    def __init__(self, functions: Sequence[Function], sizes: Sequence[tuple[int, int]]) -> None:
        """Load the functions.

        Args:
            functions: What to compute.
            sizes: (height, width) of the pictures that models need.

        Raises:
            RequestError: One cannot be loaded.
        """
        self._calls = [(load(one), one) for one in functions]
        self._models = len(sizes)
        self.sizes = [*dict.fromkeys([*sizes, *(one.size for one in functions)])]
        """Of all pictures to make, those for models first."""

    def __call__(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> tuple[Any, ...]:
        """The inputs of a picture: (h, w, 3) uint8 for each model, then each function's vector.

        Args:
            pictures: One picture, in each of `sizes`.

        Raises:
            FunctionFailedError: A function gives no vector for it.
        """
        vectors = [
            vector_of(call, one, pictures[self.sizes.index(one.size)]) for call, one in self._calls
        ]
        return (*pictures[: self._models], *vectors)
