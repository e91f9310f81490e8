"""The `lookalike` command: flags in, exit status out.

0 done (and published); 2 the request is wrong, nothing was written; 3 the run finished but a limit
stopped publication; 4 a fault that ends the same way every time; 1 anything else: try again.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module

from lookalike.pipelines import flags, logs, streams, temporary
from lookalike.pipelines.ending import AGAIN, FAULT, WRONG_REQUEST, status_of
from lookalike.pipelines.temporary import variable
from lookalike.store.cached import CACHE

_OPEN_FILES = 1 << 15
_GRACE_S = 8.0  # from a signal to the end; a machine that shuts down waits ten seconds or more
_GO_ON = ("index", "train")  # commands that continue where they were stopped
_BEAM = ("index", "query", "duplicates")  # commands that take Beam's options
_OURS = ("lookalike", "pipelines", "transforms")  # their errors say all that there is to say


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Without `argv` this is the command itself: it heeds SIGTERM as it does Ctrl-C, and ends at once,
    with whatever an engine may have left running; to take TensorFlow down in order takes a second.
    """
    if argv is not None:
        return _run(list(argv), lambda required: nullcontext())
    streams.hold()
    _heed_signals()
    _open_many_files()
    os._exit(streams.settle(_run(sys.argv[1:], temporary.private)))


def _heed_signals() -> None:
    """End by SIGTERM as by Ctrl-C; within _GRACE_S even from native code, which puts signals off.

    Whatever is ended in the midst of it was made to be.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    came, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def end_at_last() -> None:
        while os.read(came, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
            continue
        time.sleep(_GRACE_S)
        command = sys.argv[1] if len(sys.argv) > 1 else ""
        _fail(f"stopped in the midst of its work{_continues(command)}", AGAIN)
        temporary.remove()
        os._exit(streams.settle(AGAIN))

    threading.Thread(target=end_at_last, name="signals", daemon=True).start()


def _open_many_files() -> None:
    """Allow as many open files as the system lets us: stores are read from many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _run(arguments: list[str], place: Callable[[bool], AbstractContextManager[None]]) -> int:
    """Run a command in a place for its temporary files, given whether it needs one."""
    # Beam talks while it is imported, and repeats an error that ends the run
    logging.getLogger().setLevel(logging.ERROR if "--debug" in arguments else logging.CRITICAL)
    beam: list[str] = []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, beam = arguments[:cut], arguments[cut + 1 :]
    try:
        given = flags.make_parser().parse_args(arguments)
    except SystemExit as stop:  # argparse's way to end, after --help too
        return int(stop.code or 0)
    if beam and given.command not in _BEAM:
        return _fail(
            f"Beam options after -- go with {', '.join(_BEAM)}, not {given.command}", WRONG_REQUEST
        )
    try:
        cache = getattr(given, "cache", None)
        kept = variable(CACHE, os.path.abspath(cache)) if cache else nullcontext()
        with place(_needs_files(given)), kept, logs.shown(given.log_level):
            return _command(given, beam)
    except KeyboardInterrupt:
        return _fail(f"stopped{_continues(given.command)}", AGAIN)
    except Exception as error:
        status = status_of(error)
        ours = type(error).__module__.split(".")[0] in _OURS
        hints = ["trying again ends the same way"] if status == FAULT else []
        hints += [] if ours or given.debug else ["--debug shows where"]
        what = str(error) if ours else f"{type(error).__name__}: {error}"
        return _fail(f"{what} ({'; '.join(hints)})" if hints else what, status, given.debug)


def _needs_files(given: argparse.Namespace) -> bool:
    """Whether a command cannot do without temporary files: models are unpacked and compiled."""
    reads = getattr(given, "images", None) or getattr(given, "quantize", None)
    return given.command in ("index", "find", "plan", "forget", "serve") or bool(reads)


def _continues(command: str) -> str:
    """What to add to the word that a command was stopped."""
    return "; the same command continues where it was" if command in _GO_ON else ""


def _fail(message: str, status: int, debug: bool = False) -> int:
    streams.complain(message, debug)
    return status


_COMMANDS = {
    "index": ("nightly", "run_nightly"),
    "query": ("query", "run_query"),
    "find": ("find", "run_find"),
    "duplicates": ("duplicates", "run_duplicates"),
    "serve": ("serve", "run_serve"),
    "export": ("export", "export"),
    "status": ("inspect", "status"),
    "verify": ("inspect", "verify"),
    "plan": ("plan", "run_plan"),
    "evaluate": ("inspect", "evaluate"),
    "models": ("show_models", "models"),
    "tune": ("learn", "run_tune"),
    "adapt": ("learn", "run_adapt"),
    "train": ("train", "run_train"),
    "rollback": ("upkeep", "rollback"),
    "gc": ("upkeep", "gc"),
    "forget": ("forget", "run_forget"),
}
"""Module and function of each command; imported when it is given, so that --help is immediate."""


def _command(given: argparse.Namespace, beam: list[str]) -> int:
    module, function = _COMMANDS[given.command]
    run = getattr(import_module(f"lookalike.pipelines.{module}"), function)
    return int(run(given, beam) if given.command in _BEAM else run(given))


if __name__ == "__main__":
    sys.exit(main())
