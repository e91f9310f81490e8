"""The vectors of the benchmark: real ones, reduced, and as many as wanted in Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.index.generator import Generator
from lookalike.distances import Vectors
from lookalike.errors import RequestError
from lookalike.parallel import run_all

PART_ROWS = 262_144
GROUP_ROWS = 8192
_DTYPES = {"float32": np.float32, "float16": np.float16}


def load(paths: Sequence[Path]) -> Vectors:
    """Vectors (n, d) float32 of .npy files (n, d), or Parquet files with an embedding column.

    Raises:
        RequestError: A file is neither, or they differ in d.
    """
    parts = [
        np.load(path) if path.suffix == ".npy" else np.concatenate(list(read_part(path)))
        for path in paths
    ]
    if len({part.shape[1:] for part in parts}) != 1 or parts[0].ndim != 2:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise RequestError(f"the vectors' files must have rows of one length; they are {shapes}")
    return np.concatenate(parts).astype(np.float32, copy=False)


def ready(vectors: Vectors, dim: int, seed: int) -> Vectors:
    """Rows of unit length in random order, none twice, and of at most `dim` components by PCA.

    Rows that are zero or not finite are left out. The components are those of the second moments
    about zero, which keep inner products best.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors[np.isfinite(lengths) & (lengths > 0)]
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    _, first = np.unique(
        unit.view(np.dtype((np.void, unit.itemsize * unit.shape[1]))), return_index=True
    )
    unit = unit[np.random.default_rng(seed).permutation(first)]
    _, axes = np.linalg.eigh((unit.T @ unit).astype(np.float64))
    reduced = unit @ axes[:, ::-1][:, :dim].astype(np.float32)
    return np.ascontiguousarray(reduced / np.linalg.norm(reduced, axis=1, keepdims=True))


def write(made: Generator, rows: int, folder: Path, dtype: str) -> list[Path]:
    """Write rows 0 to `rows` as Parquet files of `uri` (the row's number) and `embedding`.

    Args:
        made: What makes them.
        rows: How many.
        folder: Made, for the files.
        dtype: Of the embeddings: float32 or float16.
    """
    folder.mkdir(parents=True)
    starts = range(0, rows, PART_ROWS)
    paths = [folder / f"part-{number:05d}.parquet" for number in range(len(starts))]
    run_all(
        lambda part: write_part(made, part[0], min(part[0] + PART_ROWS, rows), part[1], dtype),
        zip(starts, paths, strict=True),
    )
    return paths


def write_part(made: Generator, start: int, stop: int, path: Path, dtype: str) -> None:
    """Write one file, a row group at a time."""
    kind, dim = pa.from_numpy_dtype(_DTYPES[dtype]), made.real.shape[1]
    schema = pa.schema([("uri", pa.string()), ("embedding", pa.list_(kind, dim))])
    with pq.ParquetWriter(
        path, schema, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        for first in range(start, stop, 8 * GROUP_ROWS):
            block = made.rows(first, min(first + 8 * GROUP_ROWS, stop)).astype(_DTYPES[dtype])
            uris = pa.array([f"row:{row}" for row in range(first, first + len(block))])
            flat = pa.array(block.reshape(-1), type=kind)
            rows = pa.FixedSizeListArray.from_arrays(flat, dim)
            writer.write_table(pa.table([uris, rows], schema), row_group_size=GROUP_ROWS)


def read_part(path: Path) -> Iterator[Vectors]:
    """The vectors of one Parquet file, (m, d) float32 for each row group."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            column = file.read_row_group(group, columns=["embedding"])["embedding"]
            for chunk in column.chunks:
                flat = chunk.flatten().to_numpy(zero_copy_only=False)
                yield flat.astype(np.float32, copy=False).reshape(len(chunk), -1)


def blocks(paths: Sequence[Path]) -> Iterator[Vectors]:
    """All vectors of the files, in order."""
    for path in paths:
        yield from read_part(path)


def write_array(paths: Sequence[Path], rows: int, dim: int, output: Path) -> None:
    """Put all vectors of the files, (rows, dim), into one .npy file, for who reads only those."""
    array = np.lib.format.open_memmap(output, "w+", np.float32, (rows, dim))
    filled = 0
    for block in blocks(paths):
        array[filled : filled + len(block)] = block
        filled += len(block)
    array.flush()
