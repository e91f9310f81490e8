"""`python -m benchmarks.ledger`: a night on a ledger of many rows, without any pictures.

A first night writes the ledger of a listing of N rows. Then one row in a hundred changes: half of
those have another content, a quarter another name, an eighth are gone and an eighth new. Everything
of the second night is done but for what costs with the pictures (listing, reading, embedding) and
the index: comparing, cutting units, looking up known contents, resolving, and writing the new
ledger. Each number of rows has a process of its own, whose peak memory is printed: it must not grow
with the rows.
"""

from __future__ import annotations

import json
import resource
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.child import Answers
from benchmarks.command import arguments, run, say
from benchmarks.processes import Process
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.reconcile import Reconciling
from lookalike.pipelines.runner import RunnerSpec
from lookalike.pipelines.tasks import TaskRunner
from lookalike.reconcile.assembling import ledger_of_run, write_ledger_files
from lookalike.reconcile.compared import candidates
from lookalike.reconcile.comparing import Comparing
from lookalike.reconcile.known import read_known
from lookalike.reconcile.resolving import resolve
from lookalike.reconcile.same import Rule
from lookalike.sources.listing import Listing, listing_schema, write_table
from lookalike.sources.units import Units, mix, unit_rows_for
from lookalike.store.ledger import SCHEMA, Counts, write_ledger_tables
from lookalike.store.objects import Store, open_store
from lookalike.store.runs import Run

_BLOCK = 100_000
_SIZES = 5_000_000  # different ones, of pictures of up to 5 MB
_EPOCH = 1_700_000_000_000_000_000
_NO_METADATA = pa.schema([])

Numbers = npt.NDArray[np.int64]


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each number of rows."""
    parser = arguments("benchmarks.ledger", __doc__)
    usual = [200_000, 1_000_000, 4_000_000]
    parser.add_argument("--rows", type=int, nargs="+", default=usual, metavar="N", help=f"{usual}")
    parser.add_argument("--work", metavar="DIR", help="where files go (the system's for such)")
    return run("bench-ledger", parser.parse_args(argv), measure, table)


def measure(given: Namespace) -> dict[int, dict[str, Any]]:
    """What `night` tells, by the number of rows."""
    found = {}
    for rows in given.rows:
        with TemporaryDirectory(prefix="lookalike-ledger-", dir=given.work) as folder:
            make(Path(folder), rows)
            with Process("a night", "benchmarks.ledger:answer", [folder]) as process:
                found[rows] = process.ask()
        say(table({rows: found[rows]}))
    return found


def table(found: Mapping[int, dict[str, Any]]) -> str:
    """Rows, rows/s, memory, and what each step took."""
    lines = []
    for rows, told in found.items():
        steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in told["seconds"].items())
        lines.append(
            f"{rows:>13,} rows  {rows / sum(told['seconds'].values()):>9,.0f} rows/s  "
            f"peak {told['peak'] / 2**20:,.0f} MiB  ({steps}; {told['changes']})"
        )
    return "\n".join(lines)


def answer(folder: str) -> Answers:
    """Tells of the second night, which is all that its process does."""
    yield night(Path(folder))


def make(folder: Path, rows: int) -> None:
    """Make both listings, and the ledger of the first; what there is, is in `parent.json`."""
    store = open_store(folder)
    before = _write(store, "before", rows, lambda numbers: _listed("photos", numbers, numbers))
    first = _night(store, "first", before, [], 0)
    now = _write(store, "now", rows, lambda numbers: _changed(numbers, rows))
    about = {"parent": first["ledger"], "units": first["units"], **asdict(now)}
    (folder / "parent.json").write_text(json.dumps(about))


def night(folder: Path) -> dict[str, Any]:
    """The second night: seconds of its steps, what changed, and this process's peak memory."""
    about = json.loads((folder / "parent.json").read_text())
    listing = Listing(tuple(about["parts"]), about["rows"], about["bytes"])
    found = _night(open_store(folder), "new", listing, about["parent"], about["units"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    return {"seconds": found["seconds"], "changes": found["changes"], "peak": peak}


# --- listings ---------------------------------------------------------------------------------


def _write(store: Store, name: str, rows: int, made: Callable[[Numbers], pa.Table]) -> Listing:
    parts, total = [], 0
    for start in range(0, rows, _BLOCK):
        table = made(np.arange(start, min(rows, start + _BLOCK), dtype=np.int64))
        parts.append(f"{name}/{start // _BLOCK:05d}.parquet")
        write_table(store, parts[-1], table)
        total += table.num_rows
    return Listing(tuple(parts), total, 150 * total)


def _changed(numbers: Numbers, rows: int) -> pa.Table:
    """What is listed now of the rows with these numbers."""
    dice = (_mixed(numbers, 7) % np.uint64(800)).astype(np.int64)
    other, renamed, gone, new = dice < 4, (dice >= 4) & (dice < 6), dice == 6, dice == 7
    kept = ~other & ~renamed & ~gone
    return pa.concat_tables(
        [
            _listed("photos", numbers[kept], numbers[kept]),
            _listed("photos", numbers[other], numbers[other] + rows),
            _listed("renamed", numbers[renamed], numbers[renamed]),
            _listed("added", numbers[new], numbers[new] + rows),
        ]
    )


def _listed(folder: str, numbers: Numbers, contents: Numbers) -> pa.Table:
    """Rows of a listing; the version tells the content, for `_embed`."""
    count = len(numbers)
    uris = [f"/data/{folder}/{one % 4096:04d}/{one:012d}.jpg" for one in numbers.tolist()]
    columns: dict[str, Any] = {
        "uri": pa.array(uris, pa.string()),
        "bytes": 10_000 + (_mixed(contents, 1) % np.uint64(_SIZES)).astype(np.int64),
        "version": pa.array(contents + _EPOCH).cast(pa.string()),
        "problem": pa.repeat("", count),
        "_container": pa.repeat("", count),
        "_offset": np.full(count, -1),
        "_group": np.zeros(count, dtype=np.int64),
        "_hides": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=listing_schema(_NO_METADATA))


def _mixed(numbers: Numbers, salt: int) -> npt.NDArray[np.uint64]:
    return mix(numbers.astype(np.uint64) + np.uint64(salt << 40))


# --- a night ----------------------------------------------------------------------------------


def _night(
    store: Store, name: str, listing: Listing, parent: Sequence[Any], file_no: int
) -> dict[str, Any]:
    """All steps of a night whose embedding files have numbers from `file_no` on."""
    seconds: dict[str, float] = {}
    start = perf_counter()

    def lap(step: str) -> None:
        nonlocal start
        seconds[step], start = perf_counter() - start, perf_counter()

    tasks = TaskRunner(Run(store, name), RunnerSpec(), Progress(quiet=True))
    run, steps, through = f"runs/{name}", Reconciling(tasks), tasks.meet
    rule = Rule(2 * _EPOCH, False, None, _NO_METADATA)
    steps.compare(Comparing.of(listing, parent, f"{run}/compared", rule))
    lap("compare")
    to_read = candidates(store, f"{run}/compared")
    cut = steps.cut(to_read, f"{run}/units", unit_rows_for(to_read.rows), parent)
    lap("cut")
    units = [_embed(store, run, cut, number, file_no + number) for number in range(len(cut))]
    start = perf_counter()
    shards = {number: "" for number in range(file_no + len(units))}
    found = resolve(
        store,
        units,
        f"{run}/embedded",
        f"{run}/compared",
        f"{run}/resolved",
        meet=through,
        by_content=True,
        first_file_no=file_no,
        metadata=_NO_METADATA,
        listing=listing.parts,
        shards=shards,
    )
    lap("resolve")
    compared, resolved = f"{run}/compared", f"{run}/resolved"
    ledger = ledger_of_run(store, f"snapshots/{name}", compared, resolved, shards, None)
    lines = write_ledger_files(store, ledger, through, listing.rows)
    lap("assemble")
    ledgers = [line for line in lines if line["kind"] == "ledger"]
    return {
        "seconds": seconds,
        "changes": found.changes,
        "ledger": ledgers,
        "units": file_no + len(units),
    }


def _embed(store: Store, run: str, cut: Units, number: int, file_no: int) -> dict[str, Any]:
    """What embedding a unit's files would leave but for vectors: its ledger, and the record."""
    unit = cut.table(store, number)
    known = read_known(store, cut, number, unit)
    unit = unit.sort_by("uri")
    contents = unit["version"].cast(pa.int64()).to_numpy() - _EPOCH
    words = np.stack([_mixed(contents, salt) for salt in range(2, 6)], axis=1)
    digests = [row.tobytes() for row in words]
    had = [known.get(digest) for digest in digests]
    nothing = pa.repeat("", len(contents))
    columns: dict[str, Any] = {
        "uri": unit["uri"].combine_chunks(),
        "status": ["embedded" if one is None else "unchanged" for one in had],
        "reason": nothing,
        "detail": nothing,
        "bytes": unit["bytes"].combine_chunks(),
        "version": unit["version"].combine_chunks(),
        "content_sha256": digests,
        "id": [file_no << 32 | row if one is None else one for row, one in enumerate(had)],
        "metadata_hash": np.zeros(len(contents), dtype=np.int64),
        "known_status": nothing,
        "known_reason": nothing,
        "known_detail": nothing,
    }
    rows = pa.table(columns, schema=SCHEMA)
    counts = Counts()
    counts.add_rows(rows)
    ledger, _ = write_ledger_tables(store, f"{run}/ledger/{number:06d}.parquet", [rows])
    record = {"counts": counts.to_json(), "ledger": ledger.to_json()}
    store.write_json(f"{run}/embedded/{number:06d}.json", record)
    return record


if __name__ == "__main__":
    raise SystemExit(main())
