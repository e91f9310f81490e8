"""One pool of threads per process, a thread per core, for whatever work is cut into parts.

However many threads of a caller search at once, no more than the cores' number of parts run at a
time. Parts must be leaves: work that numpy, Arrow or Faiss do without the interpreter's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock, local
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_here = local()
_lock = Lock()
_pool: ThreadPoolExecutor | None = None


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_all(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """`work` of each item, in order; the first error comes out when all that began have ended.

    A call from within the pool is worked on by the thread that calls.
    """
    if getattr(_here, "inside", False):
        return [work(item) for item in items]
    pool = _threads()
    futures: list[Future[_Result]] = [pool.submit(work, item) for item in items]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()
        for future in futures:
            if not future.cancelled():
                future.exception()


def _threads() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(cores(), "lookalike", initializer=_mark)
        return _pool


def _mark() -> None:
    _here.inside = True


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _pool, _lock
    _pool, _lock = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
