"""What a DoFn leaves to a thread behind it, while it goes on with the next element."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Behind(Generic[_T]):
    """A thread that does one piece of work after the other, of which two at most are under way.

    So a bundle's end has to `wait`: only then is all done that was handed over, and only what a
    bundle has done by its end counts for an engine.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._thread = ThreadPoolExecutor(1, "behind")
        self._last: Future[_T] | None = None

    def hand_over(self, work: Callable[[], _T]) -> _T | None:
        """Have work done, after that before; wait for that before, and return what it gave.

        Raises:
            Exception: Whatever that before raised; the work handed over now is done all the same.
        """
        before, self._last = self._last, self._thread.submit(work)
        return before.result() if before else None

    def wait(self) -> _T | None:
        """Wait for the work that was handed over last, and return what it gave, once.

        Raises:
            Exception: Whatever it raised.
        """
        before, self._last = self._last, None
        return before.result() if before else None

    def forget(self) -> None:
        """Have nothing to do any more with what was handed over in a bundle that failed."""
        self._last = None

    def close(self) -> None:
        """Wait until all is done, however it ends, and end the thread."""
        self._last = None
        self._thread.shutdown()
