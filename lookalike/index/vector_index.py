"""The two steps of a search: candidates by their codes, then exact scores of stored vectors.

queries -> rotate -> coarse lists -> scan each shard -> merge -> exact scores
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lookalike.index.invlists import read_shard
from lookalike.index.metrics import Ids, Scores, Vectors, score, top_k, worst_score
from lookalike.index.template import Template
from lookalike.store.shards import VectorReader

_EXACT_BYTES = 128 << 20  # held at once for exact scores


class VectorIndex:
    """A template, its index shards and the stored vectors; threads may share one.

    Attributes:
        spec: What the index is.
        rows: Vectors in it.
    """

    def __init__(self, template: Template, paths: Iterable[Path], reader: VectorReader) -> None:
        """Open the index shards at `paths`.

        Raises:
            RequestError: A shard is damaged or does not belong to the template.
        """
        self._template, self._reader = template, reader
        self._shards = [read_shard(path, template) for path in paths]
        self.spec = template.spec
        self.rows = sum(shard.header.rows for shard in self._shards)

    def candidates(self, queries: Vectors, nprobe: int, depth: int) -> tuple[Ids, Scores]:
        """The best `depth` of nprobe lists by the index's own, approximate scores.

        Returns:
            Ids (n, depth) int64, best first, -1 for nothing, and those scores (for l2, squared
            distances).
        """
        prepared = self._template.prepare(queries)
        distances, lists = self._template.coarse(prepared, nprobe)
        ids = np.empty((len(queries), 0), dtype=np.int64)
        scores = np.empty((len(queries), 0), dtype=np.float32)
        # Merged shard by shard: memory is that of two answers, whatever the number of shards.
        for shard in self._shards:
            most = min(depth, max(1, shard.header.rows))
            found, found_scores = shard.search(prepared, most, distances, lists)
            ids, scores = top_k(
                np.concatenate([ids, found], axis=1),
                np.concatenate([scores, found_scores], axis=1),
                depth,
                self.spec.metric,
            )
        return ids, scores

    def exact_scores(self, queries: Vectors, candidates: Ids) -> Scores:
        """Exact scores (n, m) of each query's own candidates (n, m), from the stored vectors."""
        scores = np.full(candidates.shape, worst_score(self.spec.metric), dtype=np.float32)
        distinct = np.unique(candidates[candidates >= 0])
        if not len(distinct):
            return scores
        vectors = self._reader.vectors(distinct)  # each stored vector is read once per block
        for row, query in enumerate(queries):
            there = candidates[row] >= 0
            own = vectors[np.searchsorted(distinct, candidates[row, there])]
            scores[row, there] = score(query[None, :], own, self.spec.metric)[0]
        return scores

    def queries_at_once(self, depth: int) -> int:
        """How many queries to score exactly at a time, each with so many candidates."""
        # No vector is held twice, so those of a small store fit whatever the number of queries.
        dim = self.spec.dim
        fits = 4 * dim * self.rows <= _EXACT_BYTES
        each = 64 * depth + (0 if fits else 4 * dim * depth)
        return max(1, _EXACT_BYTES // max(1, each))
