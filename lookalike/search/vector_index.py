"""The two steps of a search: candidates by their codes, then exact scores of stored vectors.

queries -> rotate -> coarse lists -> scan each shard -> merge -> exact scores

Rotation and the choice of lists are matrix products over all queries of a block, on all cores if
there are many. The later steps take a few queries at a time, on a pool with one thread per core;
queries that share their nearest list are taken together, since they read the same codes and
vectors. A single query is answered by the thread that asks, without waiting for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.distances import (
    Ids,
    Scores,
    Vectors,
    better_is_higher,
    candidate_vectors,
    squared_lengths,
    worst_score,
)
from lookalike.exact_neighbours import ExactNeighbours
from lookalike.ivf.invlists import read_shard, select
from lookalike.ivf.selections import Selection
from lookalike.ivf.shard_files import ShardFile
from lookalike.ivf.trained_index import TrainedIndex, load_trained_index, one_faiss_thread
from lookalike.parallel import cores, run_all
from lookalike.search.reranking import best_candidates, exact_scores
from lookalike.store.living import deleted_ids
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store
from lookalike.store.snapshot import files_of
from lookalike.store.vector_reader import VectorReader

_BLOCK = 4096  # queries with their lists in memory
_TOGETHER = 256  # queries that a thread works on at a time, at most
_SCORED = 1 << 20  # candidates in memory at a time, for each thread
_READ_ROWS = 8192  # stored vectors compared with all queries of a block at a time
_PART_ROWS = 2048  # of which a thread reads so many: fewer are read before it would be awake

Rows = npt.NDArray[np.intp]


class VectorIndex:
    """A trained index, its index shards and the stored vectors; threads may share one."""

    def __init__(
        self,
        trained: TrainedIndex,
        paths: Iterable[Path],
        reader: VectorReader,
        living: Selection | None = None,
    ) -> None:
        """Open the index shards at `paths`.

        Args:
            trained: Of all of them.
            paths: Of the shards.
            reader: Of the stored vectors.
            living: The rows that searches may return, where that is not all.

        Raises:
            RequestError: A shard is damaged or does not belong to the trained index.
        """
        self.trained, self._reader, self._living = trained, reader, living
        self._shards = [read_shard(path, trained) for path in paths]
        self.spec = trained.spec
        self.entries = sum(shard.header.rows for shard in self._shards)

    @property
    def files(self) -> list[ShardFile]:
        """The shards, mapped."""
        return [shard.file for shard in self._shards]

    def search(
        self,
        queries: Vectors,
        k: int,
        nprobe: int,
        depth: int,
        without: Ids,
        selection: Selection | None = None,
    ) -> tuple[Ids, Scores, Ids]:
        """The best k by exact score of the best `depth` candidates of nprobe lists.

        Args:
            queries: (n, dim).
            k: How many.
            nprobe: Lists to scan.
            depth: Candidates.
            without: Ids that each query leaves out, (n, m), -1 for none.
            selection: Rows to choose from, by default those that live.

        Returns:
            Ids (n, k) int64, -1 for nothing; scores (n, k) float32; candidates found (n,) int64.
        """
        ids = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float32)
        counts = np.empty(len(queries), dtype=np.int64)

        def finish(rows: Rows, candidates: Ids, approximate: Scores) -> None:
            for column in without[rows].T:
                candidates = np.where(candidates == column[:, None], -1, candidates)
            counts[rows] = (candidates >= 0).sum(axis=1)
            ids[rows], scores[rows] = best_candidates(
                self._reader, queries[rows], candidates, k, self.spec.metric
            )

        self._scan(queries, nprobe, depth, selection, finish)
        return ids, scores, counts

    def candidates(
        self, queries: Vectors, nprobe: int, depth: int, selection: Selection | None = None
    ) -> tuple[Ids, Scores]:
        """The best `depth` of nprobe lists by the index's own, approximate scores.

        Returns:
            Ids (n, depth) int64, best first, -1 for nothing, and those scores (for l2, squared
            distances).
        """
        ids = np.empty((len(queries), depth), dtype=np.int64)
        scores = np.empty((len(queries), depth), dtype=np.float32)

        def keep(rows: Rows, candidates: Ids, found: Scores) -> None:
            ids[rows], scores[rows] = candidates, found

        self._scan(queries, nprobe, depth, selection, keep)
        return ids, scores

    def nearest(self, queries: Vectors, ids: Ids, k: int) -> tuple[Ids, Scores]:
        """The best k by exact score of the rows `ids` (m,), ascending, for each query (n, dim).

        Returns:
            Ids (n, k) int64, -1 for nothing, and scores (n, k) float32.
        """
        nobody = np.full(len(queries), -1, dtype=np.int64)
        found = ExactNeighbours(queries, nobody, k, self.spec.metric)
        for start in range(0, len(ids), _READ_ROWS):
            part = ids[start : start + _READ_ROWS]
            threads = min(cores(), -(-len(part) // _PART_ROWS))
            pieces = run_all(self._reader.vectors, np.array_split(part, threads))
            found.update(part, np.concatenate(pieces))
        return found.ids, found.scores

    def exact_scores(self, queries: Vectors, candidates: Ids) -> Scores:
        """Exact scores (n, m) of each query's own candidates (n, m), from the stored vectors."""
        scores = np.empty(candidates.shape, dtype=np.float32)

        def work(rows: slice) -> None:
            scores[rows] = exact_scores(
                self._reader, queries[rows], candidates[rows], self.spec.metric
            )

        step = self._together(len(queries), candidates.shape[1])
        run_all(work, [slice(start, start + step) for start in range(0, len(queries), step)])
        return scores

    def lists_of(self, ids: Ids) -> Ids:
        """The list that holds each stored row (n,): (n,) int64, found as encoding found it."""
        return self.trained.assign(self.trained.prepare(self._reader.vectors(ids)))

    def probed(self, queries: Vectors, nprobe: int) -> Ids:
        """The lists (n, nprobe) that `candidates` scans for queries (n, dim)."""
        return self.trained.coarse(self.trained.prepare(queries), nprobe)[1]

    def lost_by_codes(self, ids: Ids) -> Scores:
        """Share of the squared length of each stored row (n,) that its code does not hold."""
        vectors = self._reader.vectors(ids)
        prepared = self.trained.prepare(vectors)
        lists = self.trained.assign(prepared)
        decoded = self.trained.decode(self.trained.encode(prepared, lists), lists)
        length, kept, lost = (
            squared_lengths(rows)
            for rows in (candidate_vectors(vectors, self.spec.metric), prepared, prepared - decoded)
        )
        share = (length - kept + lost) / np.maximum(length, np.finfo(np.float32).tiny)
        return np.asarray(share, dtype=np.float32)

    def _together(self, queries: int, depth: int) -> int:
        """How many queries a thread works on at a time."""
        share = -(-queries // cores())
        return max(1, min(share, _TOGETHER, _SCORED // max(1, depth)))

    def _scan(
        self,
        queries: Vectors,
        nprobe: int,
        depth: int,
        selection: Selection | None,
        take: Callable[[Rows, Ids, Scores], None],
    ) -> None:
        """Give the candidates (m, depth) and scores of some rows (m,) at a time to `take`."""
        selection = selection or self._living
        selector = select(selection) if selection else None
        for start in range(0, len(queries), _BLOCK):
            prepared = self.trained.prepare(queries[start : start + _BLOCK])
            coarse, lists = self.trained.coarse(prepared, nprobe)
            order = np.argsort(lists[:, 0], kind="stable")  # neighbours share lists and vectors
            step = self._together(len(order), depth)

            def work(
                rows: Rows,
                start: int = start,
                prepared: Vectors = prepared,
                coarse: Scores = coarse,
                lists: Ids = lists,
            ) -> None:
                with one_faiss_thread():
                    found = self._scan_shards(
                        prepared[rows], coarse[rows], lists[rows], depth, selector
                    )
                take(start + rows, *found)

            run_all(work, [order[at : at + step] for at in range(0, len(order), step)])

    def _scan_shards(
        self, prepared: Vectors, coarse: Scores, lists: Ids, depth: int, selector: Any
    ) -> tuple[Ids, Scores]:
        """Merged shard by shard: memory is that of two answers, whatever the number of shards."""
        metric = self.spec.metric
        ids = np.full((len(prepared), depth), -1, dtype=np.int64)
        scores = np.full(ids.shape, worst_score(metric), dtype=np.float32)
        for number, shard in enumerate(self._shards):
            most = min(depth, max(1, shard.header.rows))
            found, values = shard.search(prepared, most, coarse, lists, selector)
            if number == 0:
                ids[:, :most], scores[:, :most] = found, values
                continue
            ids, scores = merge_candidates(ids, scores, found, values, metric)
        return ids, scores

    @staticmethod
    def queries_at_once(depth: int) -> int:
        """How many queries to ask at a time, so that so many candidates of each fit in memory."""
        return max(1, min(_BLOCK, 4 * _SCORED // max(1, depth)))


def merge_candidates(
    ids: Ids, scores: Scores, others: Ids, other_scores: Scores, metric: str
) -> tuple[Ids, Scores]:
    """The best m of candidates (n, m) and others (n, w), by scores; of equals the former."""
    width = ids.shape[1]
    ids, scores = np.concatenate([ids, others], 1), np.concatenate([scores, other_scores], 1)
    best = np.argsort(-scores if better_is_higher(metric) else scores, 1, kind="stable")
    best = best[:, :width]
    return np.take_along_axis(ids, best, 1), np.take_along_axis(scores, best, 1)


def open_index(
    store: Store, manifest: Manifest, shards: Sequence[str] | None = None
) -> VectorIndex:
    """The index that a manifest describes, or some of its shards, for a task that looks into it.

    Args:
        store: The store's root.
        manifest: `files` and `index`, of a snapshot that need not be published.
        shards: Paths of those to open; by default all.

    Raises:
        RequestError: A file is damaged, or does not belong to the trained index.
    """
    name = str(manifest["index"]["template"])
    trained = load_trained_index(store.local_folder(f"templates/{name}"), name)
    files = {int(one["file_no"]): str(one["path"]) for one in files_of(manifest, "embedding")}
    if shards is None:
        shards = [str(line["path"]) for line in files_of(manifest, "index")]
    deleted = deleted_ids(store, manifest)
    living = Selection(deleted, inverted=True) if len(deleted) else None
    # One after another: what is fetched stays for the moment that it takes to open it.
    paths = (store.local(path) for path in shards)
    return VectorIndex(trained, paths, VectorReader(store, files), living)
