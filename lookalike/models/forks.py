"""TensorFlow after a fork: refused at once, where it would wait for ever.

It has threads of its own, and a forked process has none of its parent's: what was started in the
parent is waited for in the child without end. OpenVINO does without them.
"""

from __future__ import annotations

import os
import sys

from lookalike.errors import RequestError

_started_before_fork = False


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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember)
