"""A worker process of the local engine: Beam's own, without its start-up talk on stderr.

What `lookalike` logs reaches the launching process by a pipe, what others log from ERROR on by
Beam's logging service. It ends with the launching process, however that ends, and leaves it to that
one to heed Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress

from lookalike.errors import one_line
from lookalike.pipelines import logs

_LOOK_EVERY_S = 0.5


def main() -> None:
    """Serve the launching process until it says to stop.

    Arguments: its number, and the descriptor of the pipe for what `lookalike` logs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    launcher = int(sys.argv[1])
    threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()
    logging.getLogger().addHandler(logging.NullHandler())  # or the first warning adds stderr
    logs.pass_on(int(sys.argv[2]))
    from apache_beam.runners.worker import sdk_worker_main

    stderr = sys.stderr
    with open(os.devnull, "w") as nowhere:
        # An error is passed on to the launching process, and need not be printed here as well.
        sys.stderr = sys.__stderr__ = nowhere  # type: ignore[misc]
        try:
            sdk_worker_main.main(sys.argv)
        except Exception as error:
            time.sleep(2 * _LOOK_EVERY_S)  # the connection is lost, where the launcher is gone
            with suppress(OSError):  # nobody may be listening
                print(f"worker: {type(error).__name__}: {one_line(error)}", file=stderr, flush=True)
            os._exit(1)
    os._exit(0)  # at once: native threads that still run do not survive the interpreter's end


def _end_with(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)  # nobody waits for it


if __name__ == "__main__":
    main()
