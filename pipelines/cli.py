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
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lookalike.errors import one_line
from lookalike.pipelines import flags, logs, streams, temporary
from lookalike.pipelines.ending import AGAIN, DONE, FAULT, WRONG_REQUEST, status_of
from lookalike.pipelines.temporary import variable
from lookalike.report.text import visible
from lookalike.store.cached import CACHE
from lookalike.store.objects import open_store

# Heavy libraries are imported by the commands that need them, so that --help is immediate.

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
        _fail("stopped in the midst of its work; the same command continues where it was", AGAIN)
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
            return int(_COMMANDS[given.command](given, beam))
    except KeyboardInterrupt:
        again = "; the same command continues where it was" if given.command in _GO_ON else ""
        return _fail(f"stopped{again}", AGAIN)
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


def _fail(message: str, status: int, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    print(f"lookalike: {visible(' '.join(message.split()))}", file=sys.stderr)
    return status


def _index(given: argparse.Namespace, beam: list[str]) -> int:
    began, status, published = time.monotonic(), AGAIN, False
    if given.metrics:
        from lookalike.pipelines.reading import file_to_write

        file_to_write("--metrics", given.metrics)
    try:
        result = _run_index(given, beam)
        status, published = DONE, result["new"]
        if given.json:
            streams.print_as_json(result)
    except BaseException as error:
        status = status_of(error)
        raise
    finally:
        if given.metrics:
            _write_metrics(given, status, time.monotonic() - began, published)
    return status


def _write_metrics(given: argparse.Namespace, status: int, seconds: float, published: bool) -> None:
    """Write the file of metrics; where that fails, the run ended as it did all the same."""
    from lookalike.pipelines.metrics_file import write_metrics

    try:
        path, store = Path(given.metrics), open_store(given.store)
        write_metrics(path, store, status=status, seconds=seconds, published=published)
    except Exception as error:
        _fail(f"--metrics {given.metrics}: not written: {one_line(error)}", status, given.debug)


def _run_index(given: argparse.Namespace, beam: list[str]) -> dict[str, Any]:
    from lookalike.models.resolving import DEFAULT_FEATURES
    from lookalike.pipelines.config import Config, load_config
    from lookalike.pipelines.index import run_index
    from lookalike.pipelines.ingest import run_ingest
    from lookalike.pipelines.job import Again
    from lookalike.pipelines.progress import Progress
    from lookalike.pipelines.runner import RunnerSpec

    retry = None if given.retry_rejects is None else frozenset(given.retry_rejects)
    again = Again(given.rehash, retry)
    if given.config:
        config = load_config(given.config, beam, vectors=bool(given.embeddings))
    else:
        features = () if given.embeddings else DEFAULT_FEATURES
        config = Config(features, runner=RunnerSpec(arguments=tuple(beam)))
    if given.embeddings:
        return run_ingest(config, given.embeddings, given.store, Progress(), again)
    return run_index(config, given.images, given.store, Progress(), again)


def _query(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.query import run_query

    return run_query(given, beam)


def _find(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.find import run_find

    return run_find(given)


def _duplicates(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.duplicates import run_duplicates

    return run_duplicates(given, beam)


def _serve(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.serve import run_serve

    return run_serve(given)


def _export(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.export import export

    return export(given)


def _status(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.inspect import status

    return status(given)


def _verify(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.inspect import verify

    return verify(given)


def _plan(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.plan import run_plan
    from lookalike.pipelines.progress import Progress

    return run_plan(given, Progress())


def _evaluate(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.inspect import evaluate

    return evaluate(given)


def _models(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.show_models import models

    return models(given)


def _tune(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.learn import run_tune

    return run_tune(given)


def _adapt(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.learn import run_adapt

    return run_adapt(given)


def _train(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.progress import Progress
    from lookalike.pipelines.train import run_train

    return run_train(given, Progress())


def _rollback(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.upkeep import rollback

    return rollback(given)


def _gc(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.upkeep import gc

    return gc(given)


def _forget(given: argparse.Namespace, beam: list[str]) -> int:
    from lookalike.pipelines.forget import run_forget

    return run_forget(given)


_COMMANDS = {
    "index": _index,
    "query": _query,
    "find": _find,
    "duplicates": _duplicates,
    "serve": _serve,
    "export": _export,
    "status": _status,
    "verify": _verify,
    "plan": _plan,
    "evaluate": _evaluate,
    "models": _models,
    "tune": _tune,
    "adapt": _adapt,
    "train": _train,
    "rollback": _rollback,
    "gc": _gc,
    "forget": _forget,
}

if __name__ == "__main__":
    sys.exit(main())
