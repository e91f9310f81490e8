"""What only informs must not stop what it informs about: its faults are noted, and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lookalike.errors import StoreWriteError, one_line

_T = TypeVar("_T")


class Faults:
    """The parts of a report that could not be made, and why.

    Attributes:
        noted: Why, by part.
    """

    def __init__(self, say: Callable[[str], object] = lambda line: None) -> None:
        """Start with none; `say` is told of each as it comes, in one line."""
        self.noted: dict[str, str] = {}
        self._say = say

    def spare(self, part: str, make: Callable[[], _T], otherwise: Any) -> _T:
        """What `make` returns, or `otherwise`, of a type alike, where it fails, which is noted.

        Raises:
            StoreWriteError: The store takes no more files: no fault of the part's.
        """
        try:
            return make()
        except StoreWriteError:
            raise
        except Exception as error:  # whatever it is: nobody waits for this part
            self.take({part: f"{type(error).__name__}: {one_line(error)}"})
            spared: _T = otherwise
            return spared

    def take(self, noted: Mapping[str, str]) -> None:
        """Take note of what was left out elsewhere."""
        for part, why in noted.items():
            self.noted[part] = why
            self._say(f"report: left out {part}: {why}")
