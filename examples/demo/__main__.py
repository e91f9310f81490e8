"""`python -m examples.demo DIR`: from nothing to a page of neighbours."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.demo.pictures import PICTURES_PER_GROUP, SCENES, write_demo
from lookalike.errors import RequestError
from lookalike.pipelines import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, index and query; returns the exit status of the first that fails."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", description="draw sample pictures, index and search them"
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a new or empty folder, or one drawn before"
    )
    folder = parser.parse_args(argv).folder
    print(f"drawing {len(SCENES)} groups of {PICTURES_PER_GROUP} pictures into {folder}/pictures")
    try:
        write_demo(folder)
    except RequestError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    page = folder / "results.html"
    for arguments in (
        ["index", "--images", f"{folder}/pictures", "--store", f"{folder}/store"],
        [
            "query",
            "--store",
            f"{folder}/store",
            "--images",
            f"{folder}/queries",
            "--html",
            f"{page}",
        ],
    ):
        print(f"$ lookalike {' '.join(arguments)}", flush=True)
        status = cli.main(arguments)
        if status:
            return status
    published = (folder / "store" / "CURRENT").read_text().strip()
    report = folder / "store" / "snapshots" / published / "report.html"
    print(f"done: open {page} in a browser; what became of each file: {report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
