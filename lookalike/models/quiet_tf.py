"""TensorFlow, imported quietly: `from lookalike.models.quiet_tf import tf`.

Every module takes TensorFlow from here. Unless `TF_CPP_MIN_LOG_LEVEL` asks for more, or it has been
imported already, its log is limited to fatal errors (lesser ones come as exceptions anyway), and
what it prints before it has read that variable is dropped. Set the variable to 0 to see everything.
The variable is only set while TensorFlow is imported, which is when it is read.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["root_log_kept", "tf"]

# What TensorFlow 2.16 to 2.21 prints while it is imported on a healthy machine: notes and warnings
# in the old or the new log format, and errors about CUDA plugins that are registered twice.
_CHATTER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IW]\d{4} \d\d:|\d{4}-\d\d-\d\d [\d:.]+: [IW] |To enable the following instructions"
    rb"|(E\d{4} |\d{4}-\d\d-\d\d [\d:.]+: E ).*Unable to register cu\w+ factory"
)

_one_at_a_time = threading.RLock()


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep TensorFlow quiet while it is imported in this block, and afterwards."""
    # Several workers on one machine with a GPU would else each reserve all of its memory. It is
    # read when the GPU is first used.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    given = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    if "tensorflow" in sys.modules or (given or "3") != "3":
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        with root_log_kept(), _without_chatter():
            yield
    finally:
        if given is None:
            del os.environ["TF_CPP_MIN_LOG_LEVEL"]
    tf.get_logger().setLevel("ERROR")


@contextmanager
def root_log_kept() -> Iterator[None]:
    """Keep TensorFlow from giving Python's root logger a handler, where it has none.

    It logs by way of absl, which calls `logging.basicConfig()`: a program's own call of that would
    do nothing any more. What Python uses where there is no handler stands in for one meanwhile.
    """
    root, stand_in = logging.getLogger(), logging.lastResort
    with _one_at_a_time:
        if root.handlers or stand_in is None:
            yield
            return
        root.addHandler(stand_in)
        try:
            yield
        finally:
            root.removeHandler(stand_in)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Hold back the process's stderr, then pass on all lines but TensorFlow's import chatter."""
    try:
        sys.stderr.flush()
        holding = tempfile.TemporaryFile()  # noqa: SIM115
        stderr = os.dup(2)
    except (OSError, AttributeError, ValueError):  # no stderr, or no place to hold it in
        yield
        return
    with holding as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            rest = [line for line in held if not _CHATTER.match(line)]
            with suppress(OSError):  # nobody may be listening
                os.write(2, b"".join(rest))


with _quietly():
    import tensorflow as tf
