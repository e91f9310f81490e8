"""Queries that are vectors: a .npy array (n, d), or a Parquet table with a column `embedding`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.errors import RequestError, one_line
from lookalike.sources.vector_tables import UNREADABLE, is_vector, open_table
from lookalike.vector_faults import Rules, judge

_BATCH = 1024

Batch = tuple[list[str], npt.NDArray[np.float32]]


def read_queries(path: str, rules: Rules) -> Iterator[Batch]:
    """Batches of names (n,) and vectors (n, d) float32.

    A name is the row's uri where it has one, else "vector:<row>".

    Raises:
        RequestError: The file is not readable, has not the shape, or a row breaks the rules; it
            names the row and what is wrong with it.
    """
    if path.endswith(".npy"):
        batches = _of_array(path, rules)
    elif path.endswith(".parquet"):
        batches = _of_table(path)
    else:
        raise RequestError(f"{path}: --vectors needs a .npy or a .parquet file")
    start = 0
    with _readable(path):
        for batch in batches:
            judged = judge(batch, np.arange(start, start + batch.num_rows), rules)
            if judged.details:
                raise RequestError(f"{path}: {judged.details[min(judged.details)]}")
            yield batch["uri"].to_pylist(), judged.vectors
            start += batch.num_rows


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except RequestError:
        raise
    except UNREADABLE as error:
        raise RequestError(f"{path}: not readable: {one_line(error)}") from error


def _of_array(path: str, rules: Rules) -> Iterator[pa.RecordBatch]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    other = array.ndim == 2 and len(array) > 0 and array.shape[1] != rules.dim
    if array.ndim != 2 or other or array.dtype.kind != "f":
        raise RequestError(
            f"{path}: needs an array (n, {rules.dim}) of floats, it is {array.shape} {array.dtype}"
        )
    for start in range(0, len(array), _BATCH):
        # a copy, in this machine's byte order, of a type that Arrow has
        kept = array.dtype if array.dtype.itemsize <= 8 else np.dtype(np.float64)
        block = np.ascontiguousarray(array[start : start + _BATCH], dtype=kept.newbyteorder("="))
        names = [f"vector:{start + row}" for row in range(len(block))]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), rules.dim)
        yield pa.RecordBatch.from_arrays([pa.array(names), vectors], ["uri", "embedding"])


def _of_table(path: str) -> Iterator[pa.RecordBatch]:
    with open_table(path) as file:
        schema = file.schema_arrow
        if "embedding" not in schema.names:
            raise RequestError(
                f"{path}: has no column `embedding`; it has {', '.join(schema.names)}"
            )
        kind = schema.field("embedding").type
        if not is_vector(kind):
            raise RequestError(
                f"{path}: the column embedding must be a list of floats, it is {kind}; cast it"
            )
        columns = [name for name in ("uri", "embedding") if name in schema.names]
        start = 0
        for batch in file.iter_batches(_BATCH, columns=columns, use_threads=False):
            given = batch["uri"].to_pylist() if "uri" in columns else [None] * batch.num_rows
            names = [str(uri) if uri else f"vector:{start + i}" for i, uri in enumerate(given)]
            yield pa.RecordBatch.from_arrays(
                [pa.array(names, pa.string()), batch["embedding"]], ["uri", "embedding"]
            )
            start += batch.num_rows
