"""A batch of queries, searched in steps that many machines can share.

coarse (block)        -> the lists its queries probe, and so which shards
scan (shard, blocks)  -> candidates from one shard's lists, by approximate score
answer (block)        -> the best candidates of all shards, then the best of these by exact score

Steps hand arrays on in files of one place, a folder or a prefix of object storage, so the pipeline
itself moves numbers of blocks and shards only. No step holds more than one mapped shard and one
block. If a step runs more than once, the file of the first attempt is the one that all later steps
read: another machine may round differently, and choose other lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Scores, Vectors, worst_score
from lookalike.ivf.encoding import headers_of
from lookalike.ivf.invlists import read_shard, select
from lookalike.ivf.selections import Selection
from lookalike.ivf.trained_index import TrainedIndex, load_trained_index, set_threads
from lookalike.search.reranking import best_candidates
from lookalike.search.vector_index import VectorIndex, merge_candidates
from lookalike.store.files import npz_arrays, npz_bytes
from lookalike.store.objects import Store, open_store
from lookalike.store.vector_reader import VectorReader

BLOCK_ROWS = 4096  # queries of a block, at most
_BLOCK_CANDIDATES = 1 << 22  # or lists, of all queries of a block together
_BLOCKS_TOGETHER = 16  # that scan a shard one after another, while it is in the system's cache
_TOGETHER = 256  # queries scanned or scored at a time

_SELECTION = "selection.npz"


@dataclass(frozen=True)
class BatchSpec:
    """One search of a batch: what every step needs to know.

    Attributes:
        store: The store's root, reachable from every worker.
        folder: Name of the place where steps leave their files, likewise; empty at first.
        trained: Folder of the trained index, relative to the store.
        shards: Index shards, relative to the store.
        files: Embedding shards by file number, relative to the store.
        block_rows: Queries of a block.
        together: Blocks for which one scan task reads its shard.
        k: Neighbours per query.
        nprobe: Lists to scan; unused by `compare`.
        depth: Candidates to score exactly; unused by `compare`.
        threads: Faiss threads of a worker process.
    """

    store: str
    folder: str
    trained: str
    sha256: str
    shards: tuple[str, ...]
    files: Mapping[int, str]
    queries: int
    block_rows: int
    together: int
    k: int
    nprobe: int = 0
    depth: int = 0
    threads: int = 1

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.queries // self.block_rows)

    def rows(self, block: int) -> slice:
        """The queries of a block."""
        return slice(block * self.block_rows, min((block + 1) * self.block_rows, self.queries))

    def answers(self, block: int) -> str:
        """Name of a block's answers in the folder."""
        return f"answers-{block:06d}.npz"


def cut(queries: int, width: int, shards: int, processes: int) -> tuple[int, int]:
    """Queries of a block, and blocks of a scan task, so that they fit in memory and all work."""
    rows = min(BLOCK_ROWS, _BLOCK_CANDIDATES // max(1, width), -(-queries // processes))
    rows = max(1, rows)
    blocks, tasks = -(-queries // rows), -(-4 * processes // max(1, shards))
    return rows, max(1, min(_BLOCKS_TOGETHER, blocks // tasks))


def write_batch(
    spec: BatchSpec, queries: Vectors, without: Ids, selection: Selection | None
) -> None:
    """Lay out what the steps read.

    Args:
        spec: Of the search.
        queries: (n, dim).
        without: Ids that each query leaves out, (n, m), -1 for none.
        selection: Rows to choose from, where that is not all.

    Raises:
        ValueError: There are not as many as the spec says.
    """
    if not len(queries) == len(without) == spec.queries:
        raise ValueError(
            f"a batch of {spec.queries:,} queries, got {len(queries):,} vectors and ids to leave "
            f"out for {len(without):,}"
        )
    place = open_store(spec.folder)
    for block in range(spec.blocks):
        rows = spec.rows(block)
        _put(place, _asked(block), queries=queries[rows], without=without[rows])
    if selection is not None:
        _put(place, _SELECTION, ids=selection.ids, inverted=np.array(selection.inverted))


def read_answers(spec: BatchSpec) -> tuple[Ids, Scores, Ids]:
    """What was found: ids (n, k), -1 for nothing, scores (n, k) and candidates counted (n,)."""
    ids = np.empty((spec.queries, spec.k), dtype=np.int64)
    scores = np.empty(ids.shape, dtype=np.float32)
    counts = np.empty(spec.queries, dtype=np.int64)
    place = open_store(spec.folder)
    for block in range(spec.blocks):
        found, rows = _load(place, spec.answers(block)), spec.rows(block)
        ids[rows], scores[rows], counts[rows] = found["ids"], found["scores"], found["counts"]
    return ids, scores, counts


class Batch:
    """The steps of one search, on a worker; its threads may share one."""

    def __init__(self, spec: BatchSpec) -> None:
        """Load the trained index.

        Raises:
            RequestError: It is not the one named.
        """
        self.spec, self._place, store = spec, open_store(spec.folder), open_store(spec.store)
        self._trained: TrainedIndex = load_trained_index(
            store.local_folder(spec.trained), spec.sha256
        )
        self._store = store
        self._reader = VectorReader(store, spec.files)
        self._metric = self._trained.spec.metric

    def coarse(self, block: int) -> list[int]:
        """Choose the lists to scan for a block; returns the numbers of the shards that hold any."""
        set_threads(self.spec.threads)
        prepared = self._trained.prepare(self._asked(block)["queries"])
        distances, lists = self._trained.coarse(prepared, self.spec.nprobe)
        counts = _put(
            self._place, _coarse(block), prepared=prepared, distances=distances, lists=lists
        )
        lists = npz_arrays(counts)["lists"]
        return [n for n, (a, b) in enumerate(self._ranges) if ((lists >= a) & (lists < b)).any()]

    def scan(self, number: int, blocks: Iterable[int]) -> None:
        """Keep the best candidates from one shard for each query of some blocks.

        Raises:
            RequestError: The shard is damaged or of another trained index.
        """
        set_threads(self.spec.threads)
        shard = read_shard(self._store.local(self.spec.shards[number]), self._trained)
        selector = select(self._selection) if self._selection else None
        width = min(self.spec.depth, max(1, shard.header.rows))
        first, last = self._ranges[number]
        for block in blocks:
            coarse = _load(self._place, _coarse(block))
            lists = coarse["lists"]
            rows = np.flatnonzero(((lists >= first) & (lists < last)).any(axis=1))
            ids = np.empty((len(rows), width), dtype=np.int64)
            scores = np.empty(ids.shape, dtype=np.float32)
            for part in _parts(lists[rows, 0]):
                own = rows[part]
                ids[part], scores[part] = shard.search(
                    coarse["prepared"][own], width, coarse["distances"][own], lists[own], selector
                )
            _put(self._place, _found(block, number), rows=rows, ids=ids, scores=scores)

    def answer(self, block: int, shards: Iterable[int]) -> None:
        """Combine what the shards gave for a block, and score the best candidates exactly."""
        spec, asked = self.spec, self._asked(block)
        queries = asked["queries"]
        candidates = np.full((len(queries), spec.depth), -1, dtype=np.int64)
        approximate = np.full(candidates.shape, worst_score(self._metric), dtype=np.float32)
        for number in sorted(shards):  # of two with the same score, the first shard's stays
            found = _load(self._place, _found(block, number))
            rows = found["rows"]
            candidates[rows], approximate[rows] = merge_candidates(
                candidates[rows], approximate[rows], found["ids"], found["scores"], self._metric
            )
        for column in asked["without"].T:
            candidates[candidates == column[:, None]] = -1
        ids = np.empty((len(queries), spec.k), dtype=np.int64)
        scores = np.empty(ids.shape, dtype=np.float32)
        for part in _parts(candidates[:, 0]):  # those with the same nearest read the same vectors
            ids[part], scores[part] = best_candidates(
                self._reader, queries[part], candidates[part], spec.k, self._metric
            )
        self._answered(block, ids, scores, (candidates >= 0).sum(axis=1))

    def compare(self, block: int) -> None:
        """Compare a block with every row of the selection, without the index.

        Raises:
            ValueError: The batch was written without a selection.
        """
        if self._selection is None:
            raise ValueError(f"{self._place}: this batch has no selection to compare with")
        index = VectorIndex(self._trained, [], self._reader)
        ids, scores = index.nearest(self._asked(block)["queries"], self._selection.ids, self.spec.k)
        self._answered(block, ids, scores, (ids >= 0).sum(axis=1))

    def _answered(self, block: int, ids: Ids, scores: Scores, counts: Ids) -> None:
        name = self.spec.answers(block)
        _put(self._place, name, ids=ids, scores=scores, counts=counts)

    def _asked(self, block: int) -> dict[str, npt.NDArray[Any]]:
        """Queries (n, dim), and ids that each leaves out (n, m)."""
        return _load(self._place, _asked(block))

    @cached_property
    def _ranges(self) -> list[tuple[int, int]]:
        """The lists [first, last) of each shard."""
        headers = headers_of(self._store, self.spec.shards, self._trained)
        return [(header.first_list, header.last_list) for header in headers]

    @cached_property
    def _selection(self) -> Selection | None:
        data = self._place.read(_SELECTION)
        if data is None:
            return None
        found = npz_arrays(data.data)
        return Selection(found["ids"], bool(found["inverted"]))


def _parts(order_by: Ids) -> Iterator[npt.NDArray[np.intp]]:
    """Some rows at a time, those with equal values together."""
    order = np.argsort(order_by, kind="stable")
    for start in range(0, len(order), _TOGETHER):
        yield order[start : start + _TOGETHER]


def _asked(block: int) -> str:
    return f"asked-{block:06d}.npz"


def _coarse(block: int) -> str:
    return f"coarse-{block:06d}.npz"


def _found(block: int, shard: int) -> str:
    return f"found-{block:06d}-{shard:06d}.npz"


def _put(place: Store, name: str, **arrays: npt.NDArray[Any]) -> bytes:
    """Write arrays where there are none of that name yet; returns the file that is there then."""
    return place.put_if_absent(name, npz_bytes(**arrays))


def _load(place: Store, name: str) -> dict[str, npt.NDArray[Any]]:
    return npz_arrays(place.read_bytes(name))
