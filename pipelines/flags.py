"""The command line's flags and what --help says of them; what they do is the matter of `cli`."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

from lookalike import __version__
from lookalike.pipelines.flag_parts import (
    Parser,
    add_config,
    add_embeddings,
    add_images,
    add_snapshot,
    add_store,
    new_command,
)
from lookalike.pipelines.learning_flags import add_learning_commands
from lookalike.pipelines.search_flags import add_search_commands


def make_parser() -> argparse.ArgumentParser:
    """The parser of a command line; it gives `command` and that command's flags."""
    parser = Parser(
        prog="lookalike",
        description="Image-by-image search, built offline: index piles of image files, find the "
        "nearest to any picture.",
        epilog="exit status: 0 done; 2 the request is wrong, nothing written; 3 finished but not "
        "published (too little recall, too many rejects or lost files); 4 a fault that ends the "
        "same way every time; 1 anything else: try again",
    )
    parser.add_argument("--version", action="version", version=f"lookalike {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )

    _index(commands)
    add_search_commands(commands)
    _status(commands)
    _verify(commands)
    _plan(commands)
    _evaluate(commands)
    add_learning_commands(commands)
    _rollback(commands)
    _gc(commands)
    _forget(commands)
    return parser


def _index(commands: Any) -> None:
    parser = new_command(commands, "index", "build a store or bring it up to date, and publish it")
    parser.epilog = (
        "one run: scan, embed, train, certify (measure recall), publish; a run that was stopped "
        "goes on where it was, and runner in the config says where (direct: here, on all cores; "
        "prism, dask, flink, spark, dataflow); what follows -- goes to Beam as pipeline options"
    )
    add_config(parser, "of features, index, limits, runner (default: the shipped features, here)")
    given = parser.add_mutually_exclusive_group(required=True)
    add_images(given, "what to index")
    add_embeddings(given)
    add_store(parser, "made if it does not exist")
    parser.add_argument(
        "--rehash",
        action="store_true",
        help="read every file again, also where size and time of change are the same",
    )
    parser.add_argument(
        "--retry-rejects",
        nargs="*",
        metavar="REASON",
        help="try rejected files again though they did not change: all, or those of these reasons "
        "(as status lists them)",
    )
    parser.add_argument(
        "--metrics",
        metavar="FILE",
        help="write how the run ended, however it did, and what is published, as OpenMetrics text",
    )


def _status(commands: Any) -> None:
    parser = new_command(
        commands, "status", "show snapshots, counts, index and certificate (measured recall)"
    )
    add_store(parser)


def _verify(commands: Any) -> None:
    parser = new_command(
        commands, "verify", "check every file of a snapshot: presence, size, sha256"
    )
    parser.epilog = "exit status 1 if any is not as the snapshot's manifest says"
    add_store(parser)
    add_snapshot(parser)


def _many(text: str) -> int:
    """A whole number, also as 1e9."""
    try:
        return int(text)
    except ValueError:
        with suppress(ValueError, OverflowError):
            if (number := float(text)).is_integer():
                return int(number)
        raise argparse.ArgumentTypeError(
            f"needs a whole number, as 1000000 or 1e6, got {text!r}"
        ) from None


def _plan(commands: Any) -> None:
    parser = new_command(
        commands, "plan", "predict time, memory, disk and index of a run; writes nothing"
    )
    add_config(parser, "of features, index and limits (default: the shipped features)")
    planned = parser.add_mutually_exclusive_group()
    add_images(planned, "what would be indexed")
    add_embeddings(planned)
    parser.add_argument(
        "--rows", type=_many, metavar="N", help="for N vectors (1e9), whatever the sources have"
    )
    parser.add_argument(
        "--workers",
        type=_many,
        metavar="W",
        help="also what it takes on W workers of one core each, on any engine and object storage",
    )
    parser.add_argument(
        "--dim",
        type=int,
        metavar="D",
        help="with --rows alone: of D components (default: as --config's models make)",
    )
    parser.add_argument(
        "--sample", type=int, metavar="N", help="pictures to embed, to measure speed (default 64)"
    )


def _evaluate(commands: Any) -> None:
    parser = new_command(
        commands, "evaluate", "measure precision@k and mAP of the features against labels"
    )
    add_store(parser)
    parser.add_argument(
        "--labels",
        required=True,
        metavar="folders|FILE",
        help="`folders`: an image's folder is its label; or a CSV/Parquet file: uri, label",
    )
    parser.add_argument("-k", type=int, default=10, help="precision at k (default 10)")
    add_snapshot(parser)


def _rollback(commands: Any) -> None:
    parser = new_command(commands, "rollback", "publish an earlier snapshot again")
    parser.epilog = "newer snapshots stay until gc removes them; the next run goes on from here"
    add_store(parser)
    parser.add_argument(
        "--snapshot",
        metavar="NAME",
        help="which (default: the parent of the published one)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare the sha256 of its files first, not their presence and size alone",
    )


def _gc(commands: Any) -> None:
    parser = new_command(commands, "gc", "remove old snapshots, and files that none needs")
    parser.epilog = (
        "a snapshot stays if any of these rules keeps it, the published one always; so does what "
        "an unfinished run younger than --keep-days has made"
    )
    add_store(parser)
    parser.add_argument(
        "--keep-last", type=int, default=3, metavar="N", help="keep the N newest (default 3)"
    )
    parser.add_argument(
        "--keep-days",
        type=float,
        default=7,
        metavar="D",
        help="keep those of the last D days (default 7)",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=3600,
        metavar="SECONDS",
        help="keep one that was published until less than this ago: it may still be read "
        "(default 3600)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would go, and remove nothing"
    )


def _forget(commands: Any) -> None:
    parser = new_command(commands, "forget", "remove images for good, and prove it")
    parser.epilog = (
        "all names of the same contents go, a snapshot without them is published, every other "
        "snapshot and unfinished run is removed at once, and every file is searched for names, "
        "hashes and vectors (exit status 1 if any is found); the files of the sources stay, "
        "but index leaves them out from now on"
    )
    add_store(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--uri", action="extend", nargs="+", metavar="URI", help="names, as query prints them"
    )
    which.add_argument(
        "--list",
        metavar="FILE",
        help="a file of names, one in a line; or .csv, .parquet with a column uri",
    )
    which.add_argument(
        "--where", metavar="CONDITION", help="images whose metadata columns fulfil it, as in query"
    )
    add_config(parser, "of index and runner (default: as the snapshot was made)")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
