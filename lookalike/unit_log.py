"""A line of the log for each unit of a stage."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from time import monotonic

from lookalike.errors import one_line

_begun = count(1)  # attempts of this process


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
