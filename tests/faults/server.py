"""`python -m faults.server`: forks a process for every command it is told, and says how it ended.

It has imported what a run needs, and has not used it: no threads but those of the libraries' own
start.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any


def main() -> None:
    """Serve until standard input ends."""
    import lookalike.pipelines.index
    import lookalike.pipelines.ingest
    import lookalike.pipelines.progress
    from lookalike.models.quiet_tf import tf

    assert lookalike.pipelines.index, (lookalike.pipelines.ingest, lookalike.pipelines.progress, tf)

    for line in sys.stdin:
        order = json.loads(line)
        print(_wait(_start(order), float(order["seconds"])), flush=True)


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

        ctypes.CDLL(None).lookalike_fault_arm(order["fault"].encode())
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
