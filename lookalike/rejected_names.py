"""Rejected files of a unit as one line of the log, however many there are."""

from __future__ import annotations

import logging
from collections.abc import Iterable

_NAMED = 3  # of each reason


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
