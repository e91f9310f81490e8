"""`lookalike export`: a snapshot's index or vectors as files that other software reads."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lookalike
from lookalike.errors import RequestError
from lookalike.pipelines.outputs import free_place, new_folder
from lookalike.pipelines.streams import print_as_json
from lookalike.report.text import visible
from lookalike.sources.sample_shards import MISSING, write_samples
from lookalike.store.durable import write_file
from lookalike.store.exporting import LivingRows, write_arrays, write_table
from lookalike.store.living import deleted_ids


def export(given: argparse.Namespace) -> int:
    """Write OUT, whole or not at all, where nothing is yet."""
    path = free_place("OUT", given.out)
    if given.format == "parquet" and path.suffix != ".parquet":
        raise RequestError(f"export {given.out}: the name of a Parquet file must end in .parquet")
    if given.format == "lance" and find_spec("lance") is None:
        raise RequestError("export --format lance needs pylance: pip install 'lookalike[lance]'")
    with lookalike.open(
        given.store, given.snapshot, check=given.check, cache=given.cache
    ) as opened:
        result: dict[str, Any] = {
            "format": given.format,
            "path": str(path),
            "snapshot": opened.manifest["name"],
            "metric": opened.metric,
            "dim": opened.dim,
        }
        if given.format == "faiss":
            result |= {"rows": opened.count, "nprobe": opened.default_nprobe}
            _write_index(opened, path)
        else:
            rows = LivingRows(opened.store, opened.manifest)
            result["rows"] = rows.count
            if given.format == "parquet":
                write_table(rows, path)
            else:
                with new_folder("OUT", path) as folder:
                    folder.mkdir()
                    if given.format == "lance":
                        _write_dataset(rows, folder)
                    elif given.format == "npy":
                        write_arrays(rows, folder)
                    else:
                        result |= _write_samples(rows, folder)
    if given.json:
        print_as_json(result)
    else:
        print(f"{result['rows']:,} rows of {result['snapshot']} written: {visible(str(path))}")
    if missing := result.get("missing"):
        where = visible(str(path / MISSING))
        print(f"{missing:,} rows left out, whose files cannot be had: {where}", file=sys.stderr)
    return 0


def _write_samples(rows: LivingRows, folder: Path) -> dict[str, int]:
    """Pictures, columns and vectors as tar shards; what there is to tell.

    Raises:
        RequestError: Not one of the pictures can be had.
    """
    told = write_samples(rows, folder)
    if told.missing and not told.samples:
        raise RequestError(
            f"export: none of the {told.missing:,} files can be had; the first: "
            f"{visible(told.first)}; export where the pictures are, or parquet, which needs none"
        )
    return {"rows": told.samples, "missing": told.missing, "shards": told.shards}


def _write_dataset(rows: LivingRows, folder: Path) -> None:
    from lookalike.store.lance_dataset import write_dataset

    write_dataset(rows, folder)


def _write_index(opened: lookalike.Searcher, path: Path) -> None:
    from lookalike.ivf.exporting import pieces

    index, deleted = opened.index, deleted_ids(opened.store, opened.manifest)
    with write_file(path.parent, path.name) as pending:
        for piece in pieces(
            index.trained, index.files, deleted, opened.count, opened.default_nprobe
        ):
            pending.write(piece)
