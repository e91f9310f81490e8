"""What the transforms tell of their work: a line of the log for each unit, and counters.

Counters are live hints for a runner's page; exact totals come from the files that a run writes.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count as numbers
from time import monotonic, monotonic_ns
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from lookalike.errors import one_line

_TOP = logging.getLogger("lookalike")
_begun = numbers(1)  # attempts of this process


class LoggedFn(beam.DoFn):
    """A DoFn whose workers log from the level on that `lookalike` has where it was sent from.

    The level travels with the DoFn, so it reaches the workers of every engine; where the launching
    program has set none, a worker's own stays.
    """

    def __getstate__(self) -> dict[str, Any]:
        """What is sent, with the level."""
        return {**self.__dict__, "_log_level": _TOP.level}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over the level with what was sent."""
        self.__dict__.update(state)
        if level := self.__dict__.pop("_log_level"):
            _TOP.setLevel(level)


def count(stage: str, name: str, by: int = 1) -> None:
    """Add to the counter `<stage>/<name>`, for example embed/rejected-images."""
    Metrics.counter(stage, name).inc(by)


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Add the block's wall time to the counter `<stage>/msec`."""
    start = monotonic_ns()
    try:
        yield
    finally:
        count(stage, "msec", (monotonic_ns() - start) // 1_000_000)


@contextmanager
def unit_of(log: logging.Logger, stage: str, unit: object) -> Iterator[dict[str, int]]:
    """Log how a unit of a stage ended (see `logged`), and count its time."""
    with logged(log, stage, unit) as counts, timed(stage):
        yield counts


@contextmanager
def logged(log: logging.Logger, stage: str, unit: object) -> Iterator[dict[str, int]]:
    """Time a unit of a stage, and log how it ended; another thread may end it.

    An attempt is named by host, process and its number there; one that failed is logged at INFO, as
    its error is told by the engine.

    Args:
        log: The module's.
        stage: Its name.
        unit: Its number, or what else names it.

    Yields:
        Counts to log, which the block fills in.
    """
    counts: dict[str, int] = {}
    attempt = f"{socket.gethostname()}:{os.getpid()}/{next(_begun)}"
    log.debug("%s: unit %s, attempt %s: begun", stage, unit, attempt)
    began = monotonic()
    try:
        yield counts
    except Exception as error:
        log.info(
            "%s: unit %s, attempt %s: failed after %.3f s: %s: %s",
            stage,
            unit,
            attempt,
            monotonic() - began,
            type(error).__name__,
            one_line(error),
        )
        raise
    log.info(
        "%s: unit %s, attempt %s: %.3f s%s",
        stage,
        unit,
        attempt,
        monotonic() - began,
        _words(counts),
    )


def _words(counts: Mapping[str, int]) -> str:
    return "".join(f", {number:,} {name}" for name, number in counts.items() if number)
