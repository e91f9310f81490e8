"""Search one index shard: inverted lists, mapped into memory, under a trained index's quantizers.

Faiss scans the lists where they lie in the file, 4-bit codes by FastScan. Opening a shard reads and
converts nothing, and shards may be larger than memory.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np

from lookalike.distances import Ids, Scores, Vectors, worst_score
from lookalike.errors import RequestError
from lookalike.ivf.selections import Selection
from lookalike.ivf.shard_files import ShardFile, capacities, map_shard
from lookalike.ivf.trained_index import TrainedIndex

faiss: Any = _faiss  # its own type stubs lack half of what is used here


class Shard:
    """Inverted lists of one file; threads may share one."""

    def __init__(self, file: ShardFile, trained: TrainedIndex) -> None:
        """See `read_shard`."""
        self.header, self.file = file.header, file
        self._metric = trained.spec.metric
        self._lists = _mapped_lists(file)  # kept: the index below only points to it
        self._ivf = trained.scanner()
        self._ivf.replace_invlists(self._lists, False)
        self._ivf.ntotal = file.header.rows

    def search(
        self, prepared: Vectors, k: int, distances: Vectors, lists: Ids, selector: Any = None
    ) -> tuple[Ids, Scores]:
        """Scan those of the lists chosen by `TrainedIndex.coarse` that this shard holds.

        Args:
            prepared: (n, D) from `TrainedIndex.prepare`.
            k: How many to return for each.
            distances: (n, nprobe) from `TrainedIndex.coarse`.
            lists: (n, nprobe), -1 for none; lists of other shards are skipped.
            selector: From `keep_ids` or `select`; None keeps every entry.

        Returns:
            Ids (n, k), best first, -1 where there is nothing, and scores (n, k): inner products, or
            squared distances for l2.
        """
        n = len(lists)
        scores = np.full((n, k), worst_score(self._metric), dtype=np.float32)
        ids = np.full((n, k), -1, dtype=np.int64)
        own = (lists >= self.header.first_list) & (lists < self.header.last_list)
        rows = np.flatnonzero(own.any(axis=1))
        # Lists of other shards are replaced by -1 and not left out. FastScan rounds scores by the
        # range of all distances given, so scores do not depend on how shards divide the lists.
        lists = np.ascontiguousarray(np.where(own, lists, -1)[rows])
        if len(rows):
            prepared, distances = prepared[rows], distances[rows]
            ids[rows], scores[rows] = self._scan(prepared, k, distances, lists, selector)
        return ids, scores

    def _scan(
        self, prepared: Vectors, k: int, distances: Vectors, lists: Ids, selector: Any
    ) -> tuple[Ids, Scores]:
        scores = np.empty((len(lists), k), dtype=np.float32)
        ids = np.empty((len(lists), k), dtype=np.int64)
        # The wrapper reads nprobe from the shared object; the C++ call takes it as an argument.
        parameters = faiss.SearchParametersIVF(nprobe=lists.shape[1], sel=selector)
        prepared = np.ascontiguousarray(prepared, dtype=np.float32)
        distances = np.ascontiguousarray(distances, dtype=np.float32)
        pointer = faiss.swig_ptr
        self._ivf.search_preassigned_c(
            len(lists),
            pointer(prepared),
            k,
            pointer(lists),
            pointer(distances),
            pointer(scores),
            pointer(ids),
            False,
            parameters,
        )
        return ids, scores


def read_shard(path: Path, trained: TrainedIndex) -> Shard:
    """Map a shard into memory, for searching with its trained index.

    Raises:
        RequestError: It is damaged, or was made with another trained index.
    """
    file = map_shard(path, trained.sha256, trained.code_size, trained.spec.nlist)
    if file.header.layout != trained.layout:
        raise RequestError(
            f"{path}: the shard has layout {file.header.layout}, its trained index is scanned in "
            f"{trained.layout}; run: lookalike verify"
        )
    return Shard(file, trained)


def _mapped_lists(file: ShardFile) -> Any:
    """Faiss's view of a shard's lists: where each one lies in the file; nothing is read."""
    header = file.header
    mapped = faiss.OnDiskInvertedLists()
    mapped.nlist, mapped.code_size = header.nlist, header.code_size
    mapped.filename, mapped.read_only = str(file.path), True
    mapped.totsize = len(file.data)
    mapped.lists.resize(header.nlist)
    # The wrapper hands out copies of the table's rows (size, capacity, offset), hence the address.
    table = np.ctypeslib.as_array(
        (ctypes.c_uint64 * (3 * header.nlist)).from_address(int(mapped.lists.data().this))
    ).reshape(header.nlist, 3)
    own = table[header.first_list : header.last_list]
    own[:, 0] = file.sizes
    own[:, 1] = capacities(file.sizes, header.layout, header.code_size)
    own[:, 2] = file.offsets[:-1]
    mapped.do_mmap()
    return mapped


def keep_ids(ids: Ids) -> Any:
    """A selector of these ids (n,) int64 alone, for `Shard.search`."""
    return faiss.IDSelectorBatch(np.ascontiguousarray(ids, dtype=np.int64))


def select(selection: Selection) -> Any:
    """A selector of the rows of a `Selection`, for `Shard.search`."""
    bits = selection.bits
    found = keep_ids(selection.ids) if bits is None else faiss.IDSelectorBitmap(bits)
    return faiss.IDSelectorNot(found) if selection.inverted else found
