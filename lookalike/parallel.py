"""One pool of threads per process, a thread per core, for whatever work is cut into parts.

Work of one part is done by the thread that asks: to hand it to another and wait costs a turn of the
system's scheduler, milliseconds where other processes are busy. However many threads of a caller
search at once, no more than the cores' number of parts run at a time. Parts must be leaves: work
that numpy, Arrow or Faiss do without the interpreter's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore, Lock, local
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_here = local()
_lock = Lock()
_pool: ThreadPoolExecutor | None = None
_places: BoundedSemaphore | None = None  # for parts at work


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_all(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """`work` of each item, in order; the first error comes out when all that began have ended.

    A call from within a part is worked on by the thread that calls.
    """
    parts = list(items)
    if getattr(_here, "inside", False):
        return [work(part) for part in parts]
    pool, places = _threads()

    def one(part: _Item) -> _Result:
        with places:
            _here.inside = True
            try:
                return work(part)
            finally:
                _here.inside = False

    if len(parts) <= 1:
        return [one(part) for part in parts]
    futures: list[Future[_Result]] = [pool.submit(one, part) for part in parts]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()
        for future in futures:
            if not future.cancelled():
                future.exception()


def _threads() -> tuple[ThreadPoolExecutor, BoundedSemaphore]:
    global _pool, _places
    with _lock:
        if _pool is None or _places is None:
            _pool, _places = ThreadPoolExecutor(cores(), "lookalike"), BoundedSemaphore(cores())
        return _pool, _places


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _pool, _places, _lock
    _pool, _places, _lock = None, None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
