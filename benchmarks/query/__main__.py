"""`python -m benchmarks.query`: what one query takes, alone and beside busy processes.

lookalike.open(store).search(vectors=one) is asked one query at a time, by processes that are warm:
with the environment as it is, and with one thread for BLAS, in turn. A query that waits for other
threads takes several times as long beside busy processes where BLAS has more than one; the ratio
says so. Processor time is printed beside the time that passed: the former tells what a query costs
on a machine that does other things meanwhile.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.query import VARIABLE
from lookalike.errors import RequestError
from lookalike.parallel import cores


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the JSON file if asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.query",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=300_000, help="vectors to make (300000)")
    parser.add_argument("--dim", type=int, default=512, help="components of them (512)")
    parser.add_argument("--store", type=Path, metavar="DIR", help="a store to ask instead")
    parser.add_argument("--queries", type=int, default=500, help="of a process a round (500)")
    parser.add_argument("--rounds", type=int, default=5, help="how often all is repeated (5)")
    parser.add_argument("--busy", type=int, default=3, help="processes beside (3)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where made files go")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    given = parser.parse_args(argv)
    if min(given.rows, given.dim, given.queries, given.rounds, given.busy) < 1:
        parser.error("--rows, --dim, --queries, --rounds and --busy must be at least 1")
    logging.getLogger().setLevel(logging.ERROR)  # Beam talks while it is imported
    from benchmarks.launch import WayError
    from benchmarks.query.made import build, queries
    from benchmarks.query.measure import measure

    try:
        with TemporaryDirectory(prefix="lookalike-bench-", dir=given.work) as folder:
            if given.store is None:
                _say(f"making and indexing {given.rows:,} vectors")
            store = given.store or build(Path(folder), given.rows, given.dim)
            asked = Path(folder) / "queries.npy"
            np.save(asked, queries(store, given.queries * given.rounds))
            found = measure(store, asked, given.queries, given.rounds, given.busy, _say)
    except RequestError as error:
        print(f"bench-query: {error}", file=sys.stderr)
        return 2
    except WayError as error:
        print(f"bench-query: {error}", file=sys.stderr)
        return 1
    document = {**found, "queries": given.queries, "rounds": given.rounds, "busy": given.busy,
                "cores": cores(), "environment": _threads()}  # fmt: skip
    print(table(document))
    if given.json:
        Path(given.json).write_text(json.dumps(document, indent=1) + "\n")
    return 0


def table(document: dict[str, Any]) -> str:
    """What was measured, and a line for each state and setting."""
    lines = [
        "{rows:,} vectors of {dim} components, {rounds} rounds of {queries:,} queries, one at a "
        "time, {cores} cores; load before {load_before:.1f}".format(**document),
        *(f"in the environment: {name}={value}" for name, value in document["environment"].items()),
        f"{'':24} {VARIABLE:>20} {'p50':>8} {'p90':>8} {'processor':>10} {'other threads':>14}  ms",
    ]
    beside = f"beside {document['busy']} busy processes"
    for state, title in (("alone", "alone"), ("beside", beside)):
        one = document["states"][state]
        for name, ms in one["settings"].items():
            lines.append(f"{title:24} {name:>20} {ms['p50']:8.2f} {ms['p90']:8.2f} "
                         f"{ms['own_ms']:10.2f} {ms['others_ms']:14.3f}")  # fmt: skip
        lines.append(f"{title:24} p50, unset to 1: {one['ratio']:.2f}")
    return "\n".join(lines)


def _threads() -> dict[str, str]:
    """Variables that set threads, but the one that is varied: those that users do not have show."""
    return {name: value for name, value in sorted(os.environ.items())
            if name.endswith("_NUM_THREADS") and name != VARIABLE}  # fmt: skip


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
