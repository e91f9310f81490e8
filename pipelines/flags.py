"""The command line's flags and what --help says of them; what they do is pipelines.cli's matter."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from lookalike import __version__
from lookalike.pages.text import visible
from pipelines.logs import LEVELS


def make_parser() -> argparse.ArgumentParser:
    """The parser of a command line; it gives `command` and that command's flags."""
    parser = _Parser(
        prog="lookalike",
        description="Image-by-image search, built offline: index piles of image files, find the "
        "nearest to any picture.",
        epilog="exit status: 0 done; 2 the request is wrong, nothing written; 3 finished but not "
        "published (too little recall, too many rejects or lost files); 4 a fault that ends the "
        "same way every time; 1 anything else: try again",
    )
    parser.add_argument("--version", action="version", version=f"lookalike {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )

    _index(commands)
    _query(commands)
    _status(commands)
    _verify(commands)
    _plan(commands)
    _evaluate(commands)
    _models(commands)
    _tune(commands)
    _adapt(commands)
    _train(commands)
    _rollback(commands)
    _gc(commands)
    _forget(commands)
    return parser


def _index(commands: Any) -> None:
    parser = _command(commands, "index", "build a store or bring it up to date, and publish it")
    parser.epilog = (
        "one run: scan, embed, train, certify (measure recall), publish; a run that was stopped "
        "goes on where it was; what follows -- goes to Beam as pipeline options"
    )
    _config(parser, "of features, index and limits (default: the shipped features)")
    given = parser.add_mutually_exclusive_group(required=True)
    _sources(given, "what to index")
    _embeddings(given)
    _store(parser, "made if it does not exist")
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


def _query(commands: Any) -> None:
    parser = _command(commands, "query", "find the nearest indexed images to some pictures")
    parser.epilog = "with --beam, what follows -- goes to Beam as pipeline options"
    _store(parser)
    asked = parser.add_mutually_exclusive_group(required=True)
    _sources(asked, "the pictures to search with")
    asked.add_argument(
        "--vectors",
        metavar="FILE",
        help="vectors instead: .npy (n, d), or .parquet with a column embedding",
    )
    parser.add_argument("-k", type=int, default=10, help="neighbours per query (default 10)")
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        help="only images whose metadata columns fulfil it: \"label = 'cat' and width > 500\"",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write a row per neighbour, as .parquet or .jsonl (default: print them)",
    )
    parser.add_argument("--html", metavar="PAGE", help="write a page with thumbnails to look at")
    _config(parser, "whose features the store must be made with, else it is refused")
    parser.add_argument(
        "--beam",
        action="store_true",
        help="answer many queries as a Beam job: on --config's runner, or here on all cores",
    )
    parser.add_argument(
        "--scratch",
        metavar="DIR",
        help="with --beam: a folder that all workers share (default, here alone: a temporary one)",
    )
    parser.add_argument(
        "--check", action="store_true", help="compare the sha256 of every file before it is read"
    )
    _snapshot(parser)


def _status(commands: Any) -> None:
    parser = _command(
        commands, "status", "show snapshots, counts, index and certificate (measured recall)"
    )
    _store(parser)


def _verify(commands: Any) -> None:
    parser = _command(commands, "verify", "check every file of a snapshot: presence, size, sha256")
    parser.epilog = "exit status 1 if any is not as the snapshot's manifest says"
    _store(parser)
    _snapshot(parser)


def _plan(commands: Any) -> None:
    parser = _command(
        commands, "plan", "predict time, memory, disk and index of a run; writes nothing"
    )
    _config(parser, "of features, index and limits (default: the shipped features)")
    planned = parser.add_mutually_exclusive_group()
    _sources(planned, "what would be indexed")
    _embeddings(planned)
    parser.add_argument(
        "--rows", type=int, metavar="N", help="for N vectors, whatever the sources have"
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
    parser = _command(
        commands, "evaluate", "measure precision@k and mAP of the features against labels"
    )
    _store(parser)
    parser.add_argument(
        "--labels",
        required=True,
        metavar="folders|FILE",
        help="`folders`: an image's folder is its label; or a CSV/Parquet file: uri, label",
    )
    parser.add_argument("-k", type=int, default=10, help="precision at k (default 10)")
    _snapshot(parser)


def _models(commands: Any) -> None:
    parser = _command(
        commands, "models", "list the features that ship, or try a handle and measure it"
    )
    parser.add_argument(
        "handle",
        nargs="?",
        metavar="HANDLE",
        help="builtin:<name>, python:module:function, a SavedModel, an ONNX file, an .xml of "
        "OpenVINO, an address; shows inputs, outputs, images/s of each engine, fingerprint and "
        "licence",
    )
    _config(parser, "whose features are tried, with all that it says of them")
    parser.epilog = (
        "--quantize measures what 8 bits cost on pictures not calibrated on (cosine, P@10 by "
        "folders or the nearest neighbours found) and gain (images/s); exit status 3 if it is not "
        "worth it and nothing was written; docs/features.md says where the bounds are"
    )
    parser.add_argument(
        "--quantize",
        action="append",
        metavar="IMAGES",
        help="make a version of HANDLE, or of a feature of --config, that calculates in 8 bits, "
        "calibrated on these pictures (as --images of index; repeatable)",
    )
    parser.add_argument(
        "--output", metavar="MODEL", help="with --quantize: the folder to make, a handle for index"
    )
    parser.add_argument(
        "--force", action="store_true", help="with --quantize: write it also where not worth it"
    )


def _tune(commands: Any) -> None:
    parser = _command(
        commands, "tune", "find the weights of a hybrid's features that fit your pictures best"
    )
    parser.epilog = (
        "the gain is measured on labels held out; exit status 3 if there is none for certain and "
        "nothing was written; index with the config embeds nothing again"
    )
    _learn(parser)
    parser.add_argument(
        "--write",
        metavar="CONFIG",
        help="write the config with the weights found, for index (default: print it)",
    )


def _adapt(commands: Any) -> None:
    parser = _command(
        commands, "adapt", "learn a projection of the vectors that tells your pictures apart better"
    )
    parser.epilog = (
        "the gain is measured on labels held out; exit status 3 if there is none for certain and "
        "nothing was written; name the model in a config (projection: MODEL) and index again, "
        "which embeds nothing again"
    )
    _learn(parser)
    parser.add_argument(
        "--output", required=True, metavar="MODEL", help="the folder to make, for the projection"
    )
    parser.add_argument(
        "--components",
        type=int,
        metavar="N",
        help="that shall come out (default: as few of 64, 128, 256, 512 or all as cost nothing)",
    )


def _learn(parser: argparse.ArgumentParser) -> None:
    """What tune and adapt have in common."""
    _store(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--labels",
        metavar="folders|FILE",
        help="`folders`: an image's folder is its label; or a CSV/Parquet file: uri, label",
    )
    which.add_argument(
        "--self",
        action="store_true",
        help="without labels: a sample of the pictures is read, and altered copies of one are of "
        "its kind",
    )
    parser.add_argument(
        "--sample", type=int, metavar="N", help="with --self: pictures to read (default 300)"
    )
    parser.add_argument(
        "-k", type=int, help="precision at k (default 10; with --self the 6 copies of a picture)"
    )
    parser.add_argument(
        "--force", action="store_true", help="write what was found also where it does not help"
    )
    _snapshot(parser)


def _train(commands: Any) -> None:
    parser = _command(
        commands, "train", "train a network on pictures of your own, as a feature of your own"
    )
    parser.epilog = (
        "the gain is measured on labels held out, or without labels on altered copies of pictures "
        "held out; exit status 3 if there is none for certain and nothing was written; a training "
        "that was stopped goes on by the same command; the model's folder is a handle for index"
    )
    parser.add_argument(
        "--images", action="extend", nargs="+", required=True, metavar="SRC",
        help="what to learn from: whatever index takes; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--labels",
        metavar="folders|FILE",
        help="`folders`: a picture's folder is its label; or a CSV/Parquet file: uri, label "
        "(default: none, views of one picture are alike)",
    )
    parser.add_argument(
        "--output", required=True, metavar="MODEL", help="the folder to make, for the model"
    )
    parser.add_argument(
        "--from",
        dest="start",
        choices=("builtin:photo", "scratch"),
        default="builtin:photo",
        help="where to begin: at the shipped network, or at a small one that knows nothing "
        "(default builtin:photo)",
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        help="where pictures, the state and logs for TensorBoard lie (default: MODEL.work)",
    )
    parser.add_argument(
        "--minutes", type=float, default=30, metavar="M",
        help="to train at most, all runs together (default 30)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, metavar="N", help="to do at most (default: no limit)")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="files to read at most (default 20000)"
    )
    parser.add_argument(
        "-k", type=int, help="precision at k (default 10; without labels the 6 copies of a picture)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of all that is drawn (default 0)"
    )
    parser.add_argument(
        "--force", action="store_true", help="write the model also where it does not help"
    )


def _rollback(commands: Any) -> None:
    parser = _command(commands, "rollback", "publish an earlier snapshot again")
    parser.epilog = "newer snapshots stay until gc removes them; the next run goes on from here"
    _store(parser)
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
    parser = _command(commands, "gc", "remove old snapshots, and files that none needs")
    parser.epilog = (
        "a snapshot stays if any of these rules keeps it, the published one always; so does what "
        "an unfinished run younger than --keep-days has made"
    )
    _store(parser)
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
    parser = _command(commands, "forget", "remove images for good, and prove it")
    parser.epilog = (
        "all names of the same contents go, a snapshot without them is published, every other "
        "snapshot and unfinished run is removed at once, and every file is searched for names, "
        "hashes and vectors (exit status 1 if any is found); the files of the sources stay, "
        "but index leaves them out from now on"
    )
    _store(parser)
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
    _config(parser, "of index and runner (default: as the snapshot was made)")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--debug", action="store_true", help="show where an error comes from (traceback)"
    )
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        default="error",
        help="log to stderr from this level on (default: error): warning names rejected files, "
        "info each unit of work with its seconds and counts, of all workers",
    )
    return parser


def _store(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "--store",
        required=True,
        metavar="STORE",
        help=f"the store's folder, or its place on object storage (s3://bucket/name)"
        f"{', ' + more if more else ''}",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="for a store on object storage: where to keep local copies of its files (default "
        "~/.cache/lookalike)",
    )


def _config(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--config", metavar="F", help=f"YAML file {what}")


def _snapshot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--snapshot", metavar="NAME", help="which (default: the published one)")


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


class _Parser(argparse.ArgumentParser):
    """One clear line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {visible(message)}; see: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)
