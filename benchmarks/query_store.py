"""The store that is asked: one that is named, or one of made vectors, built as users build."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.command import say
from benchmarks.processes import WayError, environment
from lookalike.distances import Vectors
from lookalike.errors import RequestError
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from lookalike.store.vector_reader import VectorReader

_BLOCK = 16_384  # rows made at once
_PER_CENTRE = 100  # rows
_SPREAD = 0.8  # of rows about their centre, whose components have a deviation of 1


def add_arguments(parser: ArgumentParser, rows: int) -> None:
    """Those that say which store; by default one of so many rows."""
    add = parser.add_argument
    add("--rows", type=int, default=rows, help=f"vectors to make ({rows})")
    add("--dim", type=int, default=512, help="components of them (512)")
    add("--store", type=Path, metavar="DIR", help="a store to ask instead")
    add("--work", type=Path, metavar="DIR", help="where made files go")


@contextmanager
def asked_store(given: Namespace) -> Iterator[tuple[Path, Path]]:
    """A folder for what is made, and the store, which is built there if none was named.

    Raises:
        WayError: It cannot be built.
    """
    with TemporaryDirectory(prefix="lookalike-bench-", dir=given.work) as folder:
        if given.store is None:
            say(f"making and indexing {given.rows:,} vectors")
        yield Path(folder), given.store or build(Path(folder), given.rows, given.dim)


def build(folder: Path, rows: int, dim: int) -> Path:
    """Make clustered vectors with a column of metadata, and index them by the command.

    Raises:
        WayError: The command failed.
    """
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(1, rows // _PER_CENTRE), dim), dtype=np.float32)
    schema = pa.schema(
        [("uri", pa.string()), ("embedding", pa.list_(pa.float32(), dim)), ("label", pa.string())]
    )
    parts, store = folder / "vectors.parquet", folder / "store"
    with pq.ParquetWriter(parts, schema) as writer:
        for first in range(0, rows, _BLOCK):
            own = random.integers(0, len(centres), min(_BLOCK, rows - first))
            noise = random.standard_normal((len(own), dim), dtype=np.float32)
            flat = pa.array((centres[own] + _SPREAD * noise).reshape(-1))
            numbers = range(first, first + len(own))
            uris = [f"made/{row // 1000:05d}/{row:08d}.jpg" for row in numbers]
            labels = [f"group {centre}" for centre in own.tolist()]
            vectors = pa.FixedSizeListArray.from_arrays(flat, dim)
            writer.write_table(pa.table([uris, vectors, labels], schema))
    command = [sys.executable, "-m", "lookalike.pipelines.cli", "index"]
    command += ["--embeddings", str(parts), "--store", str(store)]
    done = subprocess.run(command, env=environment(), stderr=subprocess.PIPE, text=True)
    if done.returncode:
        last = done.stderr.splitlines()[-1:] or ["(silent)"]
        raise WayError(f"lookalike index ended with status {done.returncode}: {last[0]}")
    return store


def queries(store: Path, count: int) -> Vectors:
    """Vectors (count, dim) near stored ones, no two of one row where there are enough.

    Raises:
        RequestError: There is no snapshot, or no vector in it.
    """
    lines = list(snapshot.files_of(snapshot.read_manifest(open_store(store)), "embedding"))
    rows = np.array([int(line["rows"]) for line in lines], dtype=np.int64)
    if not rows.sum():
        raise RequestError(f"{store}: there are no vectors to ask for")
    random = np.random.default_rng(1)
    chosen = random.choice(int(rows.sum()), count, replace=count > rows.sum())
    file = np.searchsorted(np.cumsum(rows), chosen, side="right")
    numbers = np.array([int(line["file_no"]) for line in lines], dtype=np.int64)
    ids = numbers[file] << 32 | (chosen - (np.cumsum(rows) - rows)[file])
    paths = {int(line["file_no"]): str(line["path"]) for line in lines}
    found = VectorReader(open_store(store), paths).vectors(ids)
    # By factors: what is not negative stays so, as jaccard demands.
    return np.asarray(found * random.uniform(0.9, 1.1, found.shape), dtype=np.float32)
