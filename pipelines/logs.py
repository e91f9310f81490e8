"""The command's log: one `lookalike` logger for this process and its workers, lines on stderr.

The library only logs: `lookalike` and the loggers below it have no handler that writes, and nothing
is ever said to the root logger. It is the command that chooses a level and shows the lines.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from lookalike.report.text import visible

LEVELS = ("debug", "info", "warning", "error")
_TOP = logging.getLogger("lookalike")
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PASSED_ON = ("name", "levelno", "levelname", "created", "msecs", "process", "threadName")


class _Lines(logging.Handler):
    """A line for each record, on stderr or wherever a stage shows how far it is."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = visible(self.format(record))
            if _places:
                _places[-1](line)
            else:
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
        except Exception:
            self.handleError(record)


_places: list[Callable[[str], None]] = []  # of the stages that run, the innermost last


@contextmanager
def lines_by(say: Callable[[str], None]) -> Iterator[None]:
    """Give lines to a function meanwhile: one that knows of the bar at a terminal's foot."""
    _places.append(say)
    try:
        yield
    finally:
        _places.remove(say)


@contextmanager
def shown(level: str) -> Iterator[None]:
    """Show what is logged from a level on, one of `LEVELS`, while a command runs."""
    before, lines = (_TOP.level, _TOP.propagate), _Lines()
    _TOP.setLevel(level.upper())
    _TOP.propagate = False  # Beam gives the root logger a handler, for stderr
    _TOP.addHandler(lines)
    try:
        yield
    finally:
        _TOP.removeHandler(lines)
        level_before, _TOP.propagate = before
        _TOP.setLevel(level_before)


# --- worker processes of this machine -----------------------------------------------------------


class _PassedOn(logging.Handler):
    """A line of JSON for each record, for the launching process."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            told = {name: getattr(record, name) for name in _PASSED_ON}
            self._stream.write(json.dumps({**told, "msg": self.format(record)}) + "\n")
            self._stream.flush()
        except Exception:  # the launching process is gone, say
            self.handleError(record)


def pass_on(descriptor: int) -> None:
    """Write what this process logs into a pipe, and leave it out of Beam's own log.

    From which level on, the DoFns say (`lookalike.transforms.logs.LoggedFn`).
    """
    os.set_inheritable(descriptor, False)  # decoders must not hold it open
    _TOP.propagate = False
    stream = open(descriptor, "w", encoding="ascii")  # noqa: SIM115 for as long as it lives
    _TOP.addHandler(_PassedOn(stream))


def log_from(descriptor: int) -> threading.Thread:
    """Log here what a worker writes into its pipe, until it ends; returns the thread that does."""

    def relay() -> None:
        with open(descriptor, encoding="ascii") as lines:
            for line in lines:
                if line.endswith("\n"):  # else the worker was killed amid it
                    _log(json.loads(line))

    thread = threading.Thread(target=relay, name="worker's log", daemon=True)
    thread.start()
    return thread


def _log(told: dict[str, Any]) -> None:
    logger = logging.getLogger(told["name"])
    if logger.isEnabledFor(told["levelno"]):
        logger.handle(logging.makeLogRecord(told))
