"""What became of a listed file, on its way to a vector. Each file has exactly one outcome."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.records import SourceFile

_NAMED = 3  # rejected files in the log, of each reason


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


class RejectedNames:
    """How many files were rejected for each reason, and the first names."""

    def __init__(self) -> None:
        """None so far."""
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, rejected: Iterable[tuple[str, str]]) -> None:
        """Take in (reason, name) of each file."""
        for reason, name in rejected:
            self._counts[reason] = self._counts.get(reason, 0) + 1
            names = self._names.setdefault(reason, [])
            if len(names) < _NAMED:
                names.append(name)

    def log(self, log: logging.Logger, stage: str, unit: int, total: int) -> None:
        """Warn of them, if there are any, in one line.

        Args:
            log: The module's.
            stage: Its name.
            unit: Its number.
            total: Files of the unit.
        """
        if self._counts:
            reasons = "; ".join(
                f"{count:,} {reason}: {', '.join(self._names[reason])}"
                + (", …" if count > _NAMED else "")
                for reason, count in sorted(self._counts.items())
            )
            rejected = sum(self._counts.values())
            log.warning("%s: unit %d: %d of %d rejected: %s", stage, unit, rejected, total, reasons)
