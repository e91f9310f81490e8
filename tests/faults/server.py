"""`python -m faults.server`: forks a process for every command it is told, and says how it ended.

It has imported what a run needs, and has not used it: no threads but those of the libraries' own
start. Of every process it says the number, and then the status.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from datetime import timedelta
from typing import Any

PART = 8 << 10
"""Bytes of a part of a large object, here: some objects are large then."""
PATIENCE_S = 2
"""How long an answer of object storage is waited for, here."""


def main() -> None:
    """Serve until standard input ends."""
    import lookalike.pipelines.index
    import lookalike.pipelines.ingest
    import lookalike.pipelines.progress
    from lookalike.models.quiet_tf import tf
    from lookalike.store import object_requests

    assert lookalike.pipelines.index, (lookalike.pipelines.ingest, lookalike.pipelines.progress, tf)
    if object_requests.obstore is not None:
        _hurry()

    for line in sys.stdin:
        order = json.loads(line)
        child = _start(order)
        print(child, flush=True)
        print(_wait(child, float(order["seconds"])), flush=True)


def _hurry() -> None:
    """Requests to object storage are as many as ever, and the pauses between them short."""
    from lookalike.store import bucket, object_errors, object_requests

    object_errors._PAUSE_S = 0.01
    object_requests.PART = bucket.PART = PART
    object_requests._CLIENT["read_timeout"] = f"{PATIENCE_S}s"
    short = {"init_backoff": timedelta(milliseconds=5), "max_backoff": timedelta(milliseconds=10)}
    object_requests._RETRY["backoff"] = {**short, "base": 2}


def _start(order: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, to in ((0, nothing), (1, log), (2, log)):
        os.dup2(to, number)
    status = 99
    try:
        sys.stdin = os.fdopen(0)
        sys.argv = ["lookalike", *order["arguments"]]
        from lookalike.pipelines.cli import main

        if order["shim"]:
            ctypes.CDLL(None).lookalike_fault_arm(order["shim"].encode())
        status = main()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _wait(child: int, seconds: float) -> int:
    """Its exit status, or minus the signal that ended it."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(child, signal.SIGABRT)
            until += seconds
        time.sleep(0.005)


if __name__ == "__main__":
    main()
