"""Tombstones: ids of rows that are forgotten, which no search may return.

One file, named by the manifest (kind "tombstones"): NumPy's .npy format, one dimension of
little-endian int64, strictly ascending. Index and embedding shards stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids
from lookalike.errors import RequestError
from lookalike.store.files import FileRecord
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store

_TYPE = np.dtype("<i8")


def write_tombstones(store: Store, relative: str, ids: npt.ArrayLike) -> FileRecord:
    """Write ids, in any order and repeated or not; returns the file's record.

    Raises:
        ValueError: An id is negative.
    """
    distinct = np.unique(np.asarray(ids, dtype=_TYPE))
    if len(distinct) and distinct[0] < 0:
        raise ValueError(f"ids are not negative, got {distinct[0]}")
    with store.write(relative) as pending:
        np.lib.format.write_array(pending.file, distinct, version=(1, 0), allow_pickle=False)
    return pending.finished


def read_tombstones(paths: Iterable[Path]) -> Ids:
    """The ids of all files, (n,) int64, ascending and distinct.

    Raises:
        RequestError: A file is not one that `write_tombstones` wrote.
    """
    found = [np.empty(0, dtype=np.int64), *(_read(path) for path in paths)]
    return np.unique(np.concatenate(found))


def tombstones_of(store: Store, manifest: Manifest) -> Ids:
    """All that a snapshot's manifest names (see `read_tombstones`)."""
    return read_tombstones(
        store.local(line["path"]) for line in manifest["files"] if line["kind"] == "tombstones"
    )


def _read(path: Path) -> Ids:
    try:
        ids = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RequestError(f"{path}: not readable as tombstones: {error}") from error
    right = isinstance(ids, np.ndarray) and ids.dtype == _TYPE and ids.ndim == 1
    if not right or (len(ids) and (ids[0] < 0 or not (np.diff(ids) > 0).all())):
        raise RequestError(
            f"{path}: not tombstones: they are ascending int64 ids; run: lookalike verify"
        )
    return np.asarray(ids, dtype=np.int64)


def among(ids: Ids, ascending: Ids) -> npt.NDArray[np.bool_]:
    """Which ids, of any shape, are among the ascending ones."""
    if not len(ascending):
        return np.zeros(ids.shape, dtype=bool)
    at = np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)
    return np.asarray(ascending[at] == ids)
