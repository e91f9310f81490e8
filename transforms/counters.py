"""Counters with units in their names, one place for all stages.

They are live hints for a runner's page; exact totals come from the files a run writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic_ns

from apache_beam.metrics import Metrics


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
