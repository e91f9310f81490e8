"""What the commands share: their arguments, errors in one line, numbers as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import Any

from benchmarks.processes import WayError
from lookalike.errors import RequestError

LIBRARIES = (
    "tensorflow",
    "tensorflow-hub",
    "openvino",
    "apache-beam",
    "faiss-cpu",
    "pyarrow",
    "pillow",
    "numpy",
)


def arguments(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with what every command takes."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    return parser


def chosen(parser: argparse.ArgumentParser, ways: str, known: Sequence[str]) -> list[str]:
    """The ways that "a,b" names, in their usual order, and always the first, the project's own."""
    asked = [way for way in ways.split(",") if way]
    if unknown := [way for way in asked if way not in known]:
        parser.error(f"--ways knows {', '.join(known)}, not {', '.join(unknown)}")
    return [way for way in known if way == known[0] or way in asked]


def at_least_one(parser: argparse.ArgumentParser, given: argparse.Namespace, names: str) -> None:
    """End with an error if one of the arguments is smaller than 1."""
    if min(getattr(given, name) for name in names.split()) < 1:
        parser.error(f"{', '.join(f'--{name}' for name in names.split())} must be at least 1")


def run(
    name: str,
    given: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Any],
    table: Callable[[Any], str],
) -> int:
    """Measure, print the table, and write the JSON file if asked; returns the exit status."""
    logging.getLogger().setLevel(logging.ERROR)  # Beam talks while it is imported
    try:
        document = measure(given)
    except (RequestError, WayError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1
    print(table(document))
    if given.json:
        Path(given.json).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def lookalike(*command: str) -> None:
    """Run a command of the project in this process, whose environment it changes.

    Raises:
        WayError: It failed; it has said why.
    """
    from lookalike.pipelines.cli import main

    if status := main(command):
        raise WayError(f"lookalike {command[0]} ended with status {status}")


def columns(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Lines of cells below each other, aligned to the right but for the columns in `left`.

    A row may end early.
    """
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


def versions() -> dict[str, str]:
    """Of what is measured with."""
    found = {"python": platform.python_version(), "machine": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
