"""What a person or a scheduler sees while stages run; always on stderr, results go to stdout."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import TextIO

from lookalike.pipelines.logs import lines_by
from lookalike.report.text import visible

_LOG = logging.getLogger(__name__)
_SHORT_S = 1.0
_REFRESH_S = 0.5
_LINE_EVERY_S = 15.0
_BAR_WIDTH = 24  # columns, where the terminal is wide enough
_UNABLE = ("dumb", "unknown")  # terminals (TERM) that cannot move their cursor


class Progress:
    """One line per finished stage; meanwhile a live bar on a terminal, plain lines elsewhere.

    Attributes:
        live: Whether a terminal is there to draw on.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self.live = self._stream.isatty() and os.environ.get("TERM") not in _UNABLE
        self._lock = threading.Lock()
        self._bar: _Bar | None = None  # of the stage that is running

    def say(self, message: str) -> None:
        """One line that stays, whatever the names in it hold."""
        if not self._quiet:
            with self._lock:
                self._print(visible(message))

    @contextmanager
    def stage(
        self, name: str, unit: str, total: int, done: Callable[[], int], start: int = 0
    ) -> Iterator[None]:
        """Show how far a stage is, with its rate, the time left and the time it has taken.

        Args:
            name: Of the stage.
            unit: What is counted, in the plural.
            total: How many there will be.
            done: How many there are; called from another thread, about twice a second.
            start: How many were there already (not counted in the rate).

        At the end a line says how long it took, but for a single thing that took under a second.
        """
        began, stop = monotonic(), threading.Event()
        pace = _Pace(unit, total, start, began)
        self._bar = _Bar(self._stream, name, total) if self.live and not self._quiet else None
        watcher = threading.Thread(
            target=self._watch, args=(name, done, pace, stop), name="progress", daemon=True
        )
        if not self._quiet:
            watcher.start()
        try:
            with nullcontext() if self._quiet else lines_by(self.say):
                yield
        finally:
            stop.set()
            if not self._quiet:
                watcher.join()
            with self._lock:
                if self._bar is not None:
                    self._bar.end()
                    self._bar = None
        seconds = monotonic() - began
        count = total - start
        if count == 1 and seconds < _SHORT_S:
            return  # what came of it is told by who asked for it
        what = unit.removesuffix("s") if count == 1 else unit
        self.say(f"{name}: {count:,} {what} in {duration(seconds)}")

    def _watch(
        self, name: str, done: Callable[[], int], pace: _Pace, stop: threading.Event
    ) -> None:
        every = _REFRESH_S if self.live else _LINE_EVERY_S
        while not stop.wait(every):
            count = done()
            words = pace.words(count, monotonic())
            with self._lock:
                if stop.is_set():
                    break
                if self._bar is not None:
                    self._bar.show(count, words)
                else:
                    self._print(f"{name}: {words}")

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.print(line)
        else:
            print(line, file=self._stream, flush=True)


class _Pace:
    """How fast a stage is, from its first sign of life on, and so when it will end."""

    def __init__(self, unit: str, total: int, start: int, began: float) -> None:
        self._unit, self._total, self._start, self._began = unit, total, start, began
        self._first: tuple[float, int] | None = None

    def words(self, count: int, now: float) -> str:
        """As in "1,200 of 5,000 files, 312.5 per second, 12 s left, 4 s so far"."""
        if self._first is None and count > self._start:
            self._first = now, count
        moment, first = self._first or (now, count)
        rate = (count - first) / (now - moment) if count > first else 0.0
        parts = [f"{count:,} of {self._total:,} {self._unit}"]
        if rate:
            parts.append(f"{rate:,.1f} per second")
        if rate and count < self._total:
            parts.append(f"{duration((self._total - count) / rate)} left")
        return ", ".join([*parts, f"{duration(now - self._began)} so far"])


class _Bar:
    """One line at the foot of a terminal, drawn anew; lines that stay go above it."""

    def __init__(self, stream: TextIO, name: str, total: int) -> None:
        # Imported where a terminal is, before threads run: no other command waits for it.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._console = Console(file=stream, force_terminal=True, highlight=False)
        words = Column(no_wrap=True)  # in a narrow terminal the bar gives way, and then their end
        self._drawn = Progress(
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn(
                "{task.description}: {task.fields[words]}", markup=False, table_column=words
            ),
            console=self._console,
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,  # stdout is for results
            redirect_stderr=False,
        )
        self._task = self._drawn.add_task(name, total=total, words="")
        self._started = False

    def show(self, count: int, words: str) -> None:
        """Draw how far it is; the first time starts the bar, so that a short stage has none."""
        self._drawn.update(self._task, completed=count, words=words)
        if self._started:
            self._drawn.refresh()
        else:
            self._started = True
            self._drawn.start()
            self._console.show_cursor(True)  # or a run that is killed leaves a terminal without

    def print(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(line, markup=False, emoji=False, soft_wrap=True)

    def end(self) -> None:
        """Leave nothing of the bar."""
        self._drawn.stop()


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage took in this process; what an earlier one did is not in it."""
    began = monotonic()
    yield
    seconds[stage] = round(monotonic() - began, 3)
    _LOG.info("%s: %.3f s", stage, seconds[stage])


def duration(seconds: float) -> str:
    """Seconds for people: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 1 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
