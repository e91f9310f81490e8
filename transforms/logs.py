"""What the transforms tell an engine of their work: counters; and the level of the log.

Counters are live hints for a runner's page; exact totals come from the files that a run writes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic_ns
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from lookalike.unit_log import logged

_TOP = logging.getLogger("lookalike")


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
    """Add to the counter `<stage>/<name>`, for example embed/rejected-files."""
    Metrics.counter(stage, name).inc(by)


def count_all(stage: str, counts: Mapping[str, int]) -> None:
    """Add to several counters of a stage."""
    for name, by in counts.items():
        count(stage, name, by)


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
