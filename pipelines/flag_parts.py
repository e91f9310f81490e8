"""Flags that several commands have."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from lookalike.pipelines.logs import LEVELS
from lookalike.report.text import visible


def new_command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """A command, with the flags that all have."""
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


def add_store(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Which store; `more` is said of it."""
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


def add_config(parser: argparse.ArgumentParser, what: str) -> None:
    """A config; `what` it is for."""
    parser.add_argument("--config", metavar="F", help=f"YAML file {what}")


def add_snapshot(parser: argparse.ArgumentParser) -> None:
    """Which snapshot."""
    parser.add_argument("--snapshot", metavar="NAME", help="which (default: the published one)")


def add_check(parser: argparse.ArgumentParser) -> None:
    """Whether to trust the store's files."""
    parser.add_argument(
        "--check", action="store_true", help="compare the sha256 of every file before it is read"
    )


def add_scratch(parser: argparse.ArgumentParser, when: str = "") -> None:
    """Where jobs that only read a store put what tasks leave for one another; `when` it matters."""
    parser.add_argument(
        "--scratch",
        metavar="DIR",
        help=f"{when}a folder, or a place on object storage, that all workers share (default here "
        "alone: a temporary one; elsewhere: runs/ of a store on object storage)",
    )


def add_images(parser: Any, what: str) -> None:
    """Which pictures; `what` becomes of them."""
    parser.add_argument(
        "--images",
        action="extend",
        nargs="+",
        metavar="SRC",
        help=f"{what}: folders, globs, tar shards (WebDataset: .tar, .tar.gz, .tgz), Parquet "
        "tables of images, CSV or Parquet manifests with a uri column, or files; "
        "local or remote (s3://, gs://, hdfs://); may be given several times",
    )


def add_embeddings(parser: Any) -> None:
    """Which vectors, in place of pictures."""
    parser.add_argument(
        "--embeddings",
        action="extend",
        nargs="+",
        metavar="SRC",
        help="vectors made elsewhere instead: Parquet files, folders or globs of them, with the "
        "columns uri and embedding; others are carried along as metadata",
    )


class Parser(argparse.ArgumentParser):
    """One clear line instead of the whole usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Leave nothing for the parser of all commands, which would name itself in its error."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        if message.endswith(": expected one argument"):
            flag = message.split()[1].rstrip(":").rpartition("/")[2]
            message += f"; one that begins with - is given as {flag}=VALUE"
        print(f"{self.prog}: {visible(message)}; see: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)
