"""What a person or a scheduler sees while stages run; always on stderr, results go to stdout."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TextIO

from lookalike.pages.text import visible

_REFRESH_S = 0.5
_LINE_EVERY_S = 15.0


class Progress:
    """One line per finished stage; meanwhile a live line on a terminal, plain lines elsewhere."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self.live = self._stream.isatty()
        self._lock = threading.Lock()

    def say(self, message: str) -> None:
        """One line that stays, whatever the names in it hold."""
        if not self._quiet:
            with self._lock:
                clear = "\r\x1b[K" if self.live else ""
                print(f"{clear}{visible(message)}", file=self._stream, flush=True)

    @contextmanager
    def stage(
        self, name: str, unit: str, total: int, done: Callable[[], int], start: int = 0
    ) -> Iterator[None]:
        """Show how far a stage is, with its rate and the time left.

        Args:
            name: Of the stage.
            unit: What is counted, in the plural.
            total: How many there will be.
            done: How many there are; called from another thread, about twice a second.
            start: How many were there already (not counted in the rate).
        """
        began, stop = monotonic(), threading.Event()
        watcher = threading.Thread(
            target=self._watch, args=(name, unit, total, done, start, began, stop), daemon=True
        )
        if not self._quiet:
            watcher.start()
        try:
            yield
        finally:
            stop.set()
            if not self._quiet:
                watcher.join()
        seconds = monotonic() - began
        count = total - start
        what = unit.removesuffix("s") if count == 1 else unit
        self.say(f"{name}: {count:,} {what} in {duration(seconds)}")

    def _watch(
        self,
        name: str,
        unit: str,
        total: int,
        done: Callable[[], int],
        start: int,
        began: float,
        stop: threading.Event,
    ) -> None:
        spoken, first = began, (0.0, 0)  # the rate counts from the first sign of life
        while not stop.wait(_REFRESH_S):
            now = monotonic()
            if not self.live and now - spoken < _LINE_EVERY_S:
                continue
            spoken, count = now, done()
            if count > start and not first[1]:
                first = (now, count)
            rate = (count - first[1]) / (now - first[0]) if first[1] and count > first[1] else 0.0
            line = f"{name}: {count:,} of {total:,} {unit}"
            if rate:
                line += f", {rate:,.1f} per second"
            if rate and count < total:
                line += f", {duration((total - count) / rate)} left"
            with self._lock:
                if stop.is_set():
                    break
                if self.live:
                    print(f"\r\x1b[K{line}", end="", file=self._stream, flush=True)
                else:
                    print(line, file=self._stream, flush=True)
        if self.live:
            with self._lock:
                print("\r\x1b[K", end="", file=self._stream, flush=True)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage took in this process; what an earlier one did is not in it."""
    began = monotonic()
    yield
    seconds[stage] = round(monotonic() - began, 3)


def duration(seconds: float) -> str:
    """Seconds for people: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 1 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
