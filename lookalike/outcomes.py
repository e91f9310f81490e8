"""What became of a listed file, on its way to a vector. Each file has exactly one outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.records import SourceFile

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """A file that was decoded; `width` and `height` are the upright original's."""

    file: SourceFile
    sha256: bytes
    bytes: int
    width: int
    height: int
    format: str


@dataclass(frozen=True)
class Decoded(Picture):
    """A file that became model inputs.

    `inputs` has one (h, w, 3) uint8 RGB array per input size of models, then one (dim,) float32
    vector per function of the user's own.
    """

    inputs: tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True)
class Embedded(Picture):
    """A file that became a vector (d,) float32."""

    vector: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Duplicate:
    """A file with the same bytes as one met before; what became of that one holds for it too."""

    file: SourceFile
    sha256: bytes


@dataclass(frozen=True)
class Failed:
    """A file without a vector: `rejected` or `ignored`, for a reason (see rejections)."""

    file: SourceFile
    status: str
    reason: str = ""
    detail: str = ""
    sha256: bytes | None = None
