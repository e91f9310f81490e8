"""`python -m benchmarks.ledger`: a night on a ledger of many rows, without any pictures.

A ledger of N rows and a listing of about as many are made, of which one in a hundred changed: half
of those have another content, a quarter another name, an eighth are gone and an eighth new. Then
everything of a nightly run is done but for what costs with the pictures (listing, reading,
embedding) and the index: comparing, cutting units, looking up known contents, resolving, and
writing the new ledger. Each number of rows has a process of its own, whose peak memory is printed:
it must not grow with the rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.pipelines.progress import Progress
from lookalike.pipelines.reconcile import Reconciling
from lookalike.pipelines.runner import RunnerSpec
from lookalike.pipelines.tasks import meet
from lookalike.reconcile.assembling import ledger_of_run, write_ledger_files
from lookalike.reconcile.compared import candidates
from lookalike.reconcile.comparing import Comparing
from lookalike.reconcile.known import read_known
from lookalike.reconcile.resolving import resolve
from lookalike.reconcile.same import Rule
from lookalike.sources.listing import Listing, listing_schema, write_table
from lookalike.sources.units import Units, mix, unit_rows_for
from lookalike.store.exchange import Dealing, Reference, references, taken
from lookalike.store.files import HashedName
from lookalike.store.ledger import SCHEMA, Counts, write_ledger_tables
from lookalike.store.objects import open_store
from lookalike.store.partitions import partition_count, uri_partitions

_BLOCK = 100_000
_SHARD_ROWS = 1024
_SIZES = 5_000_000  # different ones, of pictures of up to 5 MB
_EPOCH = 1_700_000_000_000_000_000
_NO_METADATA = pa.schema([])
_NEW_FILE_NO = 1 << 28

Numbers = npt.NDArray[np.int64]


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each number of rows."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ledger",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[200_000, 1_000_000, 4_000_000],
        metavar="N",
        help="of the ledger (200000 1000000 4000000)",
    )
    parser.add_argument("--work", metavar="DIR", help="where files go (the system's for such)")
    parser.add_argument("--in", dest="store", metavar="DIR", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.store:
        print(json.dumps(night(Path(given.store))))
        return 0
    for rows in given.rows:
        with TemporaryDirectory(prefix="lookalike-ledger-", dir=given.work) as folder:
            make(Path(folder), rows)
            command = [sys.executable, "-m", "benchmarks.ledger", "--in", folder]
            found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        seconds = found["seconds"]
        steps = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(
            f"{rows:>13,} rows  {rows / sum(seconds.values()):>9,.0f} rows/s  "
            f"peak {found['peak'] / 2**20:,.0f} MiB  ({steps}; {found['changes']})",
            flush=True,
        )
    return 0


# --- the ledger and the listing ---------------------------------------------------------------


def make(store: Path, rows: int) -> None:
    """Write the parent's ledger, its lines (`parent.json`), and the listing."""
    place, parts = open_store(store), partition_count(rows)
    with Dealing(place, HashedName("made/rows", ".arrow"), parts) as dealing:
        for numbers in _blocks(rows):
            table = _ledger_rows(_names(numbers, "photos"), numbers, _size(numbers), numbers)
            dealing.write(table, uri_partitions(table["uri"], parts))
    pieces: dict[int, list[Reference]] = defaultdict(list)
    for part, piece in references(dealing.record(), 0):
        pieces[part].append(piece)
    lines = []
    for part in range(parts):
        table = taken(place, pieces[part], SCHEMA).sort_by("uri")
        record, count = write_ledger_tables(place, f"parent/{part:05d}.parquet", [table])
        lines.append({**record.to_json(), "rows": count, "partition": [part, parts]})
    names, total = [], 0
    for number, numbers in enumerate(_blocks(rows)):
        table = _listing_rows(numbers, rows)
        names.append(f"listing/{number:05d}.parquet")
        write_table(open_store(store), names[-1], table)
        total += table.num_rows
    about = {"rows": rows, "parent": lines, "parts": names, "listed": total}
    (store / "parent.json").write_text(json.dumps(about))


def _blocks(rows: int) -> Iterator[Numbers]:
    for start in range(0, rows, _BLOCK):
        yield np.arange(start, min(rows, start + _BLOCK), dtype=np.int64)


def _mixed(numbers: Numbers, salt: int) -> npt.NDArray[np.uint64]:
    return mix(numbers.astype(np.uint64) + np.uint64(salt << 40))


def _size(contents: Numbers) -> Numbers:
    return 10_000 + (_mixed(contents, 1) % np.uint64(_SIZES)).astype(np.int64)


def _digests(contents: Numbers) -> pa.Array:
    words = np.stack([_mixed(contents, salt) for salt in range(2, 6)], axis=1)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(contents), [None, pa.py_buffer(words.tobytes())]
    )


def _names(numbers: Numbers, folder: str) -> pa.Array:
    return pa.array([f"/data/{folder}/{i % 4096:04d}/{i:012d}.jpg" for i in numbers.tolist()])


def _versions(contents: Numbers) -> pa.Array:
    return pa.array(contents + _EPOCH).cast(pa.string())


def _ids(numbers: Numbers) -> Numbers:
    return numbers // _SHARD_ROWS << 32 | numbers % _SHARD_ROWS


def _ledger_rows(names: pa.Array, contents: Numbers, sizes: Numbers, numbers: Numbers) -> pa.Table:
    nothing = pa.repeat("", len(numbers))
    columns: dict[str, Any] = {
        "uri": names,
        "status": pa.repeat("embedded", len(numbers)),
        "reason": nothing,
        "detail": nothing,
        "bytes": sizes,
        "version": _versions(contents),
        "content_sha256": _digests(contents),
        "id": _ids(numbers),
        "metadata_hash": np.zeros(len(numbers), dtype=np.int64),
        "known_status": nothing,
        "known_reason": nothing,
        "known_detail": nothing,
    }
    return pa.table(columns, schema=SCHEMA)


def _listing_rows(numbers: Numbers, rows: int) -> pa.Table:
    """What is listed now; the version tells the content, for `_embed`."""
    dice = (_mixed(numbers, 7) % np.uint64(800)).astype(np.int64)
    changed, renamed, gone, new = dice < 4, (dice >= 4) & (dice < 6), dice == 6, dice == 7
    contents = np.where(changed | new, numbers + rows, numbers)
    old = _names(numbers, "photos")
    uris = pa.array(np.where(renamed, _names(numbers, "renamed"), old))
    table = _listing_table(uris, contents).filter(pa.array(~gone & ~new))
    kept = _listing_table(old.filter(pa.array(new)), numbers[new])
    added = _listing_table(_names(numbers[new], "added"), contents[new])
    return pa.concat_tables([table, kept, added])


def _listing_table(uris: pa.Array, contents: Numbers) -> pa.Table:
    count = len(contents)
    columns: dict[str, Any] = {
        "uri": uris,
        "bytes": _size(contents),
        "version": _versions(contents),
        "problem": pa.repeat("", count),
        "_container": pa.repeat("", count),
        "_offset": np.full(count, -1),
        "_group": np.zeros(count, dtype=np.int64),
        "_hides": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=listing_schema(_NO_METADATA))


# --- the night --------------------------------------------------------------------------------


def night(store: Path) -> dict[str, Any]:
    """All steps; their seconds, what changed, and the peak memory of this process in bytes."""
    about = json.loads((store / "parent.json").read_text())
    listing = Listing(tuple(about["parts"]), about["listed"], 150 * about["listed"])
    seconds: dict[str, float] = {}
    start = perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        seconds[name], start = perf_counter() - start, perf_counter()

    place = open_store(store)
    steps = Reconciling(place, RunnerSpec(), Progress(quiet=True))
    rule = Rule(2 * _EPOCH, False, None, _NO_METADATA)
    steps.compare(Comparing.of(listing, about["parent"], "run/compared", rule))
    lap("compare")
    to_read = candidates(place, "run/compared")
    size = unit_rows_for(to_read.rows, 16)
    cut = steps.cut(to_read, "run/units", size, about["parent"])
    lap("cut")
    units = [_embed(store, cut, number) for number in range(len(cut))]
    lap("(embedding)")
    shards = {number: "" for number in range(-(-about["rows"] // _SHARD_ROWS))}
    through = meet(open_store(store), RunnerSpec(), Progress(quiet=True))
    found = resolve(
        place,
        units,
        "run/embedded",
        "run/compared",
        "run/resolved",
        meet=through,
        by_content=True,
        first_file_no=_NEW_FILE_NO,
        metadata=_NO_METADATA,
        listing=listing.parts,
        shards=shards,
    )
    lap("resolve")
    ledger = ledger_of_run(place, "snapshots/new", "run/compared", "run/resolved", shards, None)
    write_ledger_files(place, ledger, through, about["rows"])
    lap("assemble")
    del seconds["(embedding)"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "changes": found.changes, "peak": peak}


def _embed(store: Path, cut: Units, number: int) -> dict[str, Any]:
    """What embedding a unit's files would leave but for vectors: its ledger, and the record."""
    unit = cut.table(open_store(store), number)
    known = read_known(open_store(store), cut, number, unit)
    table = unit.sort_by("uri")
    contents = table["version"].cast(pa.int64()).to_numpy() - _EPOCH
    file_no = _NEW_FILE_NO + number
    ids = file_no << 32 | np.arange(len(contents), dtype=np.int64)
    rows = _ledger_rows(table["uri"].combine_chunks(), contents, table["bytes"].to_numpy(), ids)
    had = [known.get(content) for content in rows["content_sha256"].to_pylist()]
    status = ["embedded" if one is None else "unchanged" for one in had]
    new = pa.array(
        [own if one is None else one for own, one in zip(ids.tolist(), had, strict=True)]
    )
    rows = rows.set_column(1, "status", pa.array(status)).set_column(7, "id", new)
    counts = Counts()
    counts.add_rows(rows)
    name = f"run/ledger/{number:06d}.parquet"
    ledger, _ = write_ledger_tables(open_store(store), name, [rows.cast(SCHEMA)])
    record = {"counts": counts.to_json(), "ledger": ledger.to_json()}
    open_store(store).write_json(f"run/embedded/{number:06d}.json", record)
    return record


if __name__ == "__main__":
    raise SystemExit(main())
