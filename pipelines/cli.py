"""The `lookalike` command: flags in, exit status out.

0 done (and published); 2 the request is wrong, nothing was written; 3 the run finished but a limit
stopped publication; 1 anything else.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from lookalike import __version__
from lookalike.errors import NotPublishedError, RequestError

# Heavy libraries are imported by the commands that need them, so that --help is immediate.

_OPEN_FILES = 1 << 15
_OURS = ("lookalike", "pipelines", "transforms")  # their errors say all that there is to say


class _Parser(argparse.ArgumentParser):
    """One clear line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Without `argv` this is the command itself: it heeds SIGTERM as it does Ctrl-C, and where it
    fails it ends at once, with whatever an engine may have left running.
    """
    if argv is not None:
        return _run(list(argv))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _open_many_files()
    status = _run(sys.argv[1:])
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


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
        given = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse's way to end, after --help too
        return int(stop.code or 0)
    if beam and given.command not in ("index", "query"):
        return _fail(f"Beam options after -- go with index or query, not {given.command}", 2)
    try:
        return int(given.run(given, beam))
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
    print(f"lookalike: {' '.join(message.split())}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lookalike",
        description="Image-by-image search, built offline: index piles of image files, find the "
        "nearest to any picture.",
        epilog="exit status: 0 done; 2 the request is wrong, nothing written; 3 finished but not "
        "published (recall or reject limit); 1 anything else",
    )
    parser.add_argument("--version", action="version", version=f"lookalike {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )

    index = _command(commands, "index", _index, "one run: scan, embed, train, certify, publish")
    index.epilog = "what follows -- goes to Beam as pipeline options"
    index.add_argument("--config", metavar="F", help="YAML file (default: the shipped descriptor)")
    given = index.add_mutually_exclusive_group(required=True)
    _sources(given, "what to index")
    _embeddings(given)
    _store(index, "made if it does not exist")

    query = _command(commands, "query", _query, "find the nearest indexed images to some pictures")
    query.epilog = "with --beam, what follows -- goes to Beam as pipeline options"
    _store(query)
    asked = query.add_mutually_exclusive_group(required=True)
    _sources(asked, "the pictures to search with")
    asked.add_argument("--vectors", metavar="FILE", help="vectors instead: .npy (n, d) or .parquet")
    query.add_argument("-k", type=int, default=10, help="neighbours per query (default 10)")
    query.add_argument(
        "--where",
        metavar="CONDITION",
        help="only images whose columns fulfil it, such as: label = 'cat' and width > 500",
    )
    query.add_argument("--output", metavar="FILE", help=".parquet or .jsonl, a row per neighbour")
    query.add_argument("--html", metavar="PAGE", help="a page with thumbnails to look at")
    query.add_argument("--config", metavar="F", help="refuse the store unless made as this says")
    query.add_argument(
        "--beam",
        action="store_true",
        help="many queries as a Beam job, on the engine of --config's runner, or here by all cores",
    )
    query.add_argument(
        "--scratch",
        metavar="DIR",
        help="with --beam: where workers leave files for each other (default: a temporary folder)",
    )
    query.add_argument("--check", action="store_true", help="hash every file before it is read")
    _snapshot(query)

    status = _command(commands, "status", _status, "snapshots, counts, index, certificate")
    _store(status)

    verify = _command(commands, "verify", _verify, "check every file against the manifest")
    _store(verify)
    _snapshot(verify)

    plan = _command(
        commands, "plan", _plan, "what a run would take, and which index; writes nothing"
    )
    plan.add_argument("--config", metavar="F", help="YAML file (default: the shipped descriptor)")
    planned = plan.add_mutually_exclusive_group()
    _sources(planned, "what would be indexed")
    _embeddings(planned)
    plan.add_argument("--rows", type=int, metavar="N", help="as if there were N vectors")
    plan.add_argument("--dim", type=int, metavar="D", help="with --rows alone: of D components")
    plan.add_argument(
        "--sample", type=int, metavar="N", help="pictures to measure with (default 64)"
    )

    evaluate = _command(commands, "evaluate", _evaluate, "precision@k and mAP against labels")
    _store(evaluate)
    evaluate.add_argument(
        "--labels",
        required=True,
        metavar="folders|FILE",
        help="`folders`: an image's folder is its label; or a CSV/Parquet file with uri and label",
    )
    evaluate.add_argument("-k", type=int, default=10, help="precision at k (default 10)")
    _snapshot(evaluate)
    return parser


def _command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _store(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "--store",
        required=True,
        metavar="STORE",
        help=f"the store's folder{', ' + more if more else ''}",
    )


def _snapshot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--snapshot", metavar="NAME", help="another than the published one")


def _sources(parser: Any, what: str) -> None:
    parser.add_argument(
        "--images",
        action="extend",
        nargs="+",
        metavar="SRC",
        help=f"{what}: folders, globs, tar shards (WebDataset: .tar, .tar.gz, .tgz), Parquet "
        "tables of images, CSV or Parquet manifests with a uri column, or files; "
        "local or remote (s3://, gs://, hdfs://); may be given several times",
    )


def _embeddings(parser: Any) -> None:
    parser.add_argument(
        "--embeddings",
        action="extend",
        nargs="+",
        metavar="SRC",
        help="vectors made elsewhere instead: Parquet files, folders or globs of them, with the "
        "columns uri and embedding; others are carried along as metadata",
    )


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=True))


def _index(given: argparse.Namespace, beam: list[str]) -> int:
    from pipelines.config import Config, FeatureConfig, load_config
    from pipelines.progress import Progress
    from pipelines.runner import RunnerSpec

    if given.embeddings:
        from pipelines.ingest import run_ingest

        config = Config((), runner=RunnerSpec(arguments=tuple(beam)))
        if given.config:
            config = load_config(given.config, beam, vectors=True)
        result = run_ingest(config, given.embeddings, given.store, Progress())
        if given.json:
            _print_json(result)
        return 0
    from pipelines.index import run_index

    if given.config:
        config = load_config(given.config, beam)
    else:
        low = FeatureConfig("low", "builtin:color-texture")
        config = Config((low,), runner=RunnerSpec(arguments=tuple(beam)))
    result = run_index(config, given.images, given.store, Progress())
    if given.json:
        _print_json(result)
    return 0


def _query(given: argparse.Namespace, beam: list[str]) -> int:
    from pipelines.query import run_query

    return run_query(given, beam)


def _status(given: argparse.Namespace, beam: list[str]) -> int:
    from pipelines.inspect import status

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

    return evaluate(given)


if __name__ == "__main__":
    sys.exit(main())
