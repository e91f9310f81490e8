"""Queries that are vectors: a .npy array (n, d), or a Parquet table with a column `embedding`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.errors import RequestError, one_line
from lookalike.sources.file_kinds import ARCHIVE, ARRAY, TABLE, file_kind, not_parquet, read_head
from lookalike.sources.kinds import kind_of
from lookalike.sources.vector_tables import SUFFIXES, UNREADABLE, is_vector, open_table
from lookalike.store.storage import is_remote, path_from_uri, read_bytes
from lookalike.vector_faults import Rules, judge

UNNAMED = "vector:"
"""What the names of vectors without one begin with; the row follows."""

_BATCH = 1024

Batch = tuple[list[str], npt.NDArray[np.float32]]


def read_queries(path: str, rules: Rules) -> Iterator[Batch]:
    """Batches of names (n,) and vectors (n, d) float32.

    A name is the row's uri where it has one, else "vector:<row>".

    Raises:
        RequestError: The file is not readable, has not the shape, or a row breaks the rules; it
            names the row and what is wrong with it.
    """
    _check_there(path)
    name = (path.partition("?")[0] if is_remote(path) else path).lower()
    if name.endswith(".npy"):
        batches = _of_array(path, rules)
    elif name.endswith(SUFFIXES):
        batches = _of_table(path)
    else:
        kind = file_kind(read_head(path))
        raise RequestError(
            f"{path}: it is {kind}, and --vectors needs a .npy or a .parquet file; {_remedy(kind)}"
        )
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
        why = not_parquet(path, error, "a column embedding")
        raise RequestError(f"{path}: {why}") from error


def _check_there(path: str) -> None:
    kind = kind_of(path)
    if kind != "file":
        what = {"folder": "is a folder; name a file in it", "absent": "no such file"}
        raise RequestError(f"{path}: {what.get(kind, 'not a regular file')}")
    try:
        read_head(path)
    except OSError as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise RequestError(f"{path}: not readable: {reason}") from error


def _of_array(path: str, rules: Rules) -> Iterator[pa.RecordBatch]:
    array = _load(path)
    other = array.ndim == 2 and len(array) > 0 and array.shape[1] != rules.dim
    if array.ndim != 2 or other or array.dtype.kind != "f":
        raise RequestError(
            f"{path}: needs an array (n, {rules.dim}) of floats, it is {array.shape} {array.dtype}"
            f"; {_reshaped(array, rules.dim)}"
        )
    for start in range(0, len(array), _BATCH):
        # a copy, in this machine's byte order, of a type that Arrow has
        kept = array.dtype if array.dtype.itemsize <= 8 else np.dtype(np.float64)
        block = np.ascontiguousarray(array[start : start + _BATCH], dtype=kept.newbyteorder("="))
        names = [f"{UNNAMED}{start + row}" for row in range(len(block))]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), rules.dim)
        yield pa.RecordBatch.from_arrays([pa.array(names), vectors], ["uri", "embedding"])


def _load(path: str) -> npt.NDArray[Any]:
    """The array of a .npy file, mapped where it is local."""
    kind = file_kind(read_head(path))
    if kind != ARRAY:
        raise RequestError(f"{path}: no .npy file: it is {kind}; {_remedy(kind)}")
    try:
        if is_remote(path):
            remote: npt.NDArray[Any] = np.load(BytesIO(read_bytes(path)), allow_pickle=False)
            return remote
        local: npt.NDArray[Any] = np.load(
            os.fsdecode(path_from_uri(path)), mmap_mode="r", allow_pickle=False
        )
        return local
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, TokenError) as error:
        if "Object arrays" in str(error) or "Python objects" in str(error):
            raise RequestError(
                f"{path}: holds Python objects, not numbers; write it anew with "
                "numpy.save(FILE, array.astype('float32'))"
            ) from error
        raise RequestError(
            f"{path}: damaged or cut short: {one_line(error)}; write it anew"
        ) from error


def _remedy(kind: str) -> str:
    """What to do with a file that is no .npy, or no file of vectors at all."""
    if kind == ARCHIVE:
        return "write its one array with numpy.save('queries.npy', archive[NAME])"
    if kind == TABLE:
        return "name it .parquet"
    if kind == ARRAY:
        return "name it .npy"
    if kind.startswith("a picture"):
        return "ask with pictures by --images"
    return "write an array (n, d) of float32 with numpy.save('queries.npy', array)"


def _reshaped(array: npt.NDArray[Any], dim: int) -> str:
    if array.dtype.kind in "iub":
        return "give it as array.astype('float32')"
    if array.shape == (dim,):
        return "one vector is array[None]"
    if array.ndim == 2 and array.dtype.kind == "f":
        return f"the vectors of the store have {dim} components"
    return "each row is a query"


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
            names = [str(uri) if uri else f"{UNNAMED}{start + i}" for i, uri in enumerate(given)]
            yield pa.RecordBatch.from_arrays(
                [pa.array(names, pa.string()), batch["embedding"]], ["uri", "embedding"]
            )
            start += batch.num_rows
