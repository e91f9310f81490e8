"""The `lookalike` command: flags in, exit status out.

0 done (and published); 2 the request is wrong, nothing was written; 3 the run finished but a limit
stopped publication; 1 anything else.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lookalike.errors import NotPublishedError, RequestError
from lookalike.json_text import to_json
from lookalike.pages.markup import visible
from pipelines import flags

# Heavy libraries are imported by the commands that need them, so that --help is immediate.

_OPEN_FILES = 1 << 15
_GRACE_S = 8.0  # from a signal to the end; a machine that shuts down waits ten seconds or more
_OURS = ("lookalike", "pipelines", "transforms")  # their errors say all that there is to say


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Without `argv` this is the command itself: it heeds SIGTERM as it does Ctrl-C, and ends at once,
    with whatever an engine may have left running; to take TensorFlow down in order takes a second.
    """
    if argv is not None:
        return _run(list(argv))
    _heed_signals()
    _open_many_files()
    status = _run(sys.argv[1:])
    with suppress(BrokenPipeError):  # whoever read has had enough
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


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
        _fail("stopped in the midst of its work; the same command continues where it was", 1)
        sys.stderr.flush()
        os._exit(1)

    threading.Thread(target=end_at_last, name="signals", daemon=True).start()


def _open_many_files() -> None:
    """Allow as many open files as the system lets us: stores are read from many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _run(arguments: list[str]) -> int:
    # Beam talks while it is imported, and repeats an error that ends the run
    logging.getLogger().setLevel(logging.ERROR if "--debug" in arguments else logging.CRITICAL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # any file name can be printed anywhere
            stream.reconfigure(errors="backslashreplace")
    beam: list[str] = []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, beam = arguments[:cut], arguments[cut + 1 :]
    try:
        given = flags.make_parser().parse_args(arguments)
    except SystemExit as stop:  # argparse's way to end, after --help too
        return int(stop.code or 0)
    if beam and given.command not in ("index", "query"):
        return _fail(f"Beam options after -- go with index or query, not {given.command}", 2)
    try:
        return int(_COMMANDS[given.command](given, beam))
    except RequestError as error:
        return _fail(str(error), 2, given.debug)
    except NotPublishedError as error:
        return _fail(str(error), 3, given.debug)
    except KeyboardInterrupt:
        again = "; the same command continues where it was" if given.command == "index" else ""
        return _fail(f"stopped{again}", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if type(error).__module__.split(".")[0] in _OURS:
            return _fail(str(error), 1, given.debug)
        hint = "" if given.debug else " (--debug shows where)"
        return _fail(f"{type(error).__name__}: {error}{hint}", 1, given.debug)


def _fail(message: str, status: int, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    print(f"lookalike: {visible(' '.join(message.split()))}", file=sys.stderr)
    return status


def _print_json(value: Any) -> None:
    print(to_json(value, indent=1))


def _index(given: argparse.Namespace, beam: list[str]) -> int:
    began, status, published = time.monotonic(), 1, False
    try:
        result = _run_index(given, beam)
        status, published = 0, result["new"]
        if given.json:
            _print_json(result)
    except (RequestError, NotPublishedError) as error:
        status = 2 if isinstance(error, RequestError) else 3
        raise
    finally:
        if given.metrics:
            from pipelines.metrics_file import write_metrics
            from pipelines.stores import folder_of

            seconds = time.monotonic() - began
            path, store = Path(given.metrics), folder_of(given.store, given.cache)
            write_metrics(path, store, status=status, seconds=seconds, published=published)
    return status


def _run_index(given: argparse.Namespace, beam: list[str]) -> dict[str, Any]:
    from pipelines.config import DEFAULT_FEATURES, Config, load_config
    from pipelines.index import run_index
    from pipelines.ingest import run_ingest
    from pipelines.job import Again
    from pipelines.progress import Progress
    from pipelines.runner import RunnerSpec

    retry = None if given.retry_rejects is None else frozenset(given.retry_rejects)
    again = Again(given.rehash, retry)
    if given.config:
        config = load_config(given.config, beam, vectors=bool(given.embeddings))
    else:
        features = () if given.embeddings else DEFAULT_FEATURES
        config = Config(features, runner=RunnerSpec(arguments=tuple(beam)))
    if given.embeddings:
        return run_ingest(config, given.embeddings, given.store, Progress(), again, given.cache)
    return run_index(config, given.images, given.store, Progress(), again, given.cache)


def _query(given: argparse.Namespace, beam: list[str]) -> int:
    from pipelines.query import run_query
    from pipelines.stores import to_read

    to_read(given, *(["model"] if given.vectors else []))
    return run_query(given, beam)


def _status(given: argparse.Namespace, beam: list[str]) -> int:
    from pipelines.inspect import status
    from pipelines.stores import to_read

    to_read(given, only=())
    return status(given)


def _verify(given: argparse.Namespace, beam: list[str]) -> int:
    from pipelines.inspect import verify

    return verify(given)


def _plan(given: argparse.Namespace, beam: list[str]) -> int:
    from pipelines.plan import run_plan
    from pipelines.progress import Progress

    return run_plan(given, Progress())


def _evaluate(given: argparse.Namespace, beam: list[str]) -> int:
    from pipelines.inspect import evaluate
    from pipelines.stores import to_read

    to_read(given, "index", "template", "model")
    return evaluate(given)


def _rollback(given: argparse.Namespace, beam: list[str]) -> int:
    from pipelines.upkeep import rollback

    return rollback(given)


def _gc(given: argparse.Namespace, beam: list[str]) -> int:
    from pipelines.upkeep import gc

    return gc(given)


def _forget(given: argparse.Namespace, beam: list[str]) -> int:
    from pipelines.forget import run_forget

    return run_forget(given)


_COMMANDS = {
    "index": _index,
    "query": _query,
    "status": _status,
    "verify": _verify,
    "plan": _plan,
    "evaluate": _evaluate,
    "rollback": _rollback,
    "gc": _gc,
    "forget": _forget,
}

if __name__ == "__main__":
    sys.exit(main())
