"""Some decoder processes that threads take turns with, started when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, LifoQueue

from lookalike.images.decoding import Decoder
from lookalike.serve.limits import RefusedError

_PATIENCE_S = 30.0


class Decoders:
    """As many decoders as may run at the same time; threads may share one."""

    def __init__(self, make: Callable[[], Decoder], count: int) -> None:
        """Prepare so many decoders; no process is started yet."""
        self._free: LifoQueue[Decoder] = LifoQueue()  # the one used last is running already
        self._all = [make() for _ in range(count)]
        self._closed = False
        for one in self._all:
            self._free.put(one)

    @contextmanager
    def one(self) -> Iterator[Decoder]:
        """A decoder that nobody else has meanwhile.

        Raises:
            RefusedError: None gets free within a time.
        """
        try:
            decoder = self._free.get(timeout=_PATIENCE_S)
        except Empty:
            raise RefusedError(
                503, "all decoders are busy; try again", {"Retry-After": "5"}
            ) from None
        try:
            yield decoder
        finally:
            if self._closed:
                decoder.close()
            self._free.put(decoder)

    def start(self) -> None:
        """Start the process of one that is free."""
        with self.one() as decoder:
            decoder.start()

    def close(self) -> None:
        """End those that nobody has, and the others when they are given back."""
        self._closed = True
        while True:
            try:
                self._free.get_nowait().close()
            except Empty:
                return

    def kill(self) -> None:
        """End all at once, for a process that ends itself."""
        self._closed = True
        for one in self._all:
            one.close()
