"""Models after a fork: what would wait for ever is refused at once, or left alone.

A forked process has none of its parent's threads, so that what they were to do is waited for
without end. TensorFlow computes in threads of its own, and is refused. OpenVINO answers without
them, but joins them when a model goes: there the parent's models stay until the process ends.
"""

from __future__ import annotations

import ctypes
import os
import sys
from weakref import WeakSet

from lookalike.errors import RequestError

_started_before_fork = False
_of_this_process: WeakSet[object] = WeakSet()


def keep_in_forks(model: object) -> None:
    """Let no process that is forked from this one destroy a model, whatever lets go of it there.

    Args:
        model: To which weak references can be made; this process destroys it as ever.
    """
    _of_this_process.add(model)


def check_process(pid: int) -> None:
    """Whether a model that TensorFlow loaded in the process `pid`, or is to load, can run in this.

    Raises:
        RequestError: It was loaded before a fork, or TensorFlow had been started then.
    """
    if _started_before_fork or pid != os.getpid():
        raise RequestError(
            "pictures cannot be embedded in this process: it was forked from one that had started "
            "TensorFlow, whose threads a fork does not have; start processes by spawn "
            "(multiprocessing.get_context('spawn')), fork before the first search for pictures, "
            "or search with vectors"
        )


def _tensorflow_runs() -> bool:
    """Whether TensorFlow has started its threads: not when it is imported, but when it is used."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return False
    if getattr(tensorflow.__spec__, "_initializing", False):  # another thread is importing it
        return True
    try:
        context = sys.modules["tensorflow.python.eager.context"].context_safe()
        return context is not None and bool(context._initialized)
    except (KeyError, AttributeError):  # another version: rather refuse than wait
        return True


def _remember() -> None:
    global _started_before_fork
    _started_before_fork = _started_before_fork or _tensorflow_runs()
    for model in _of_this_process:  # rubbish that is not collected yet is among them
        # A reference that nothing gives back: a list of them would end with the interpreter.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(model))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember)
