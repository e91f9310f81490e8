"""The truth that recall is measured against, kept from one snapshot to the next.

Queries are rows of the store, drawn by a hash of their ids as they come; with each are kept more of
its nearest rows than are needed, so that rows may go and come before a query has to be compared
with the whole store again. What is handed on equals what a comparison of all living rows would
give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Scores, Vectors, better_is_higher, worst_score
from lookalike.exact_neighbours import ExactNeighbours
from lookalike.store.attempts import Record, recorded
from lookalike.store.files import HashedName, npz_arrays, npz_bytes
from lookalike.store.objects import Store
from lookalike.store.tombstones import among

TRUTH_K = 100  # neighbours that recall is measured by
KEPT = 150  # and that are kept
CROWDED = 1.25  # times the queries wanted, from which on some are let go

Keys = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


@dataclass
class Truth:
    """Queries and their nearest rows, complete up to an edge.

    Attributes:
        known: Queries, their ids, and of each the nearest living rows, KEPT at most.
        keys: (q,) uint64, of each query when it was drawn.
        limit: Rows whose key is at most this become queries.
        edge_scores: (q,) float32. A living row that is no farther than its query's edge is known;
            of as far ones, those with ids up to the edge's. An infinity where all rows are.
        edge_ids: (q,) int64.
    """

    known: ExactNeighbours
    keys: Keys
    limit: int
    edge_scores: Scores
    edge_ids: Ids

    @classmethod
    def of(cls, vectors: Vectors, ids: Ids, keys: Keys, limit: int, metric: str) -> Truth:
        """Queries (q, d) with ids (q,) and keys (q,), of which no neighbour is known."""
        known = ExactNeighbours(vectors, ids, KEPT, metric)
        nowhere = -worst_score(metric)  # nothing is nearer, so nothing is known
        edges = np.full(len(ids), nowhere, dtype=np.float32)
        return cls(known, keys, limit, edges, np.full(len(ids), -1, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def ids(self) -> Ids:
        """Of the queries, (q,)."""
        return self.known.query_ids

    @property
    def short(self) -> Flags:
        """Queries (q,) of which fewer than TRUTH_K neighbours are known, though there may be."""
        everything = self.edge_scores == worst_score(self.known.metric)
        return np.asarray(((self.known.ids >= 0).sum(axis=1) < TRUTH_K) & ~everything)

    def take(self, chosen: npt.NDArray[np.intp] | Flags) -> Truth:
        """Some of the queries, with what is known of them."""
        known = self.unknown(chosen)
        known.ids, known.scores = self.known.ids[chosen], self.known.scores[chosen]
        edges = self.edge_scores[chosen], self.edge_ids[chosen]
        return Truth(known, self.keys[chosen], self.limit, *edges)

    def unknown(self, chosen: npt.NDArray[np.intp] | Flags) -> ExactNeighbours:
        """Some of the queries, with no neighbours."""
        known = self.known
        return ExactNeighbours(
            known.queries[chosen], known.query_ids[chosen], known.k, known.metric
        )

    def restarted(self) -> Truth:
        """The same queries, of which no neighbour is known."""
        known = self.known
        return Truth.of(known.queries, known.query_ids, self.keys, self.limit, known.metric)

    def living(self, deleted: Ids) -> Truth:
        """Without the queries and neighbours that are deleted; `deleted` (n,) is ascending."""
        kept = self.take(~among(self.ids, deleted))
        gone = among(kept.known.ids, deleted)
        kept.known.ids = np.where(gone, -1, kept.known.ids)
        order = np.argsort(kept.known.ids < 0, axis=1, kind="stable")
        nothing = worst_score(kept.known.metric)
        scores = np.where(kept.known.ids < 0, np.float32(nothing), kept.known.scores)
        kept.known.ids = np.take_along_axis(kept.known.ids, order, 1)
        kept.known.scores = np.take_along_axis(scores, order, 1)
        return kept

    def thinned(self, wanted: int) -> Truth:
        """Without the queries of largest key, where there are many more than are wanted."""
        if len(self) <= CROWDED * wanted:
            return self
        kept = self.take(np.sort(np.argpartition(self.keys, wanted)[:wanted]))
        kept.limit = int(kept.keys.max(initial=0))
        return kept

    def join(self, other: Truth) -> Truth:
        """These queries and others, with what is known of each."""
        one, two = self.known, other.known
        known = ExactNeighbours(
            np.concatenate([one.queries, two.queries]),
            np.concatenate([one.query_ids, two.query_ids]),
            one.k,
            one.metric,
        )
        known.ids = np.concatenate([one.ids, two.ids])
        known.scores = np.concatenate([one.scores, two.scores])
        return Truth(
            known,
            np.concatenate([self.keys, other.keys]),
            self.limit,
            np.concatenate([self.edge_scores, other.edge_scores]),
            np.concatenate([self.edge_ids, other.edge_ids]),
        )

    def compared(self, everything: ExactNeighbours) -> Truth:
        """These queries, of which the neighbours among all living rows were found."""
        full = everything.ids[:, -1] >= 0
        edges = np.where(full, everything.scores[:, -1], worst_score(everything.metric))
        last = np.where(full, everything.ids[:, -1], np.iinfo(np.int64).max)
        return Truth(everything, self.keys, self.limit, edges.astype(np.float32), last)

    def updated(self, more: ExactNeighbours) -> Truth:
        """With the neighbours of the same queries among rows that are new."""
        found = self.unknown(np.arange(len(self)))
        found.merge(self.known)
        found.merge(more)
        sign = -1 if better_is_higher(found.metric) else 1
        losses, edges = sign * found.scores, sign * self.edge_scores[:, None]
        # Beyond the edge there may be rows between these that are not known.
        inside = (losses < edges) | ((losses == edges) & (found.ids <= self.edge_ids[:, None]))
        inside &= found.ids >= 0
        found.ids = np.where(inside, found.ids, -1)
        found.scores = np.where(inside, found.scores, np.float32(worst_score(found.metric)))
        full = found.ids[:, -1] >= 0
        return Truth(
            found,
            self.keys,
            self.limit,
            np.where(full, found.scores[:, -1], self.edge_scores),
            np.where(full, found.ids[:, -1], self.edge_ids),
        )

    def put(self, chosen: Flags, others: Truth) -> Truth:
        """With `others` in place of the queries chosen, which are the same in the same order."""
        changed = self.take(np.arange(len(self)))
        changed.known.ids[chosen] = others.known.ids
        changed.known.scores[chosen] = others.known.scores
        changed.edge_scores[chosen] = others.edge_scores
        changed.edge_ids[chosen] = others.edge_ids
        return changed

    def measured(self) -> ExactNeighbours:
        """What recall is measured by: the TRUTH_K nearest."""
        first = ExactNeighbours(self.known.queries, self.ids, TRUTH_K, self.known.metric)
        first.ids, first.scores = self.known.ids[:, :TRUTH_K], self.known.scores[:, :TRUTH_K]
        return first

    def to_bytes(self) -> bytes:
        """Everything, as an uncompressed .npz file."""
        return npz_bytes(
            **npz_arrays(self.known.to_bytes()),
            keys=self.keys,
            limit=np.array(self.limit, dtype=np.uint64),
            edge_scores=self.edge_scores,
            edge_ids=self.edge_ids,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Truth:
        """The inverse of `to_bytes`."""
        known = ExactNeighbours.from_bytes(data)
        stored = npz_arrays(data)
        edges = stored["edge_scores"], stored["edge_ids"]
        return cls(known, stored["keys"], int(stored["limit"]), *edges)


@dataclass(frozen=True)
class MergeTask:
    """Files to make one of; paths are relative to the store.

    Attributes:
        queries: File of the queries, without neighbours.
        parts: Files of their neighbours among some rows each.
        output: The file to write: its name but for the hash of the content.
    """

    number: int
    queries: str
    parts: tuple[str, ...]
    output: str
    done: str


@recorded
def merge_parts(task: MergeTask, store: Store) -> Record:
    """Write the neighbours among all rows and, last, the record: `truth`, the file's line."""
    found = merged(store, task.queries, task.parts)
    return {"truth": store.put(HashedName(task.output, ".npz"), found.to_bytes()).to_json()}


def merged(store: Store, queries: str, parts: Sequence[str]) -> ExactNeighbours:
    """The neighbours in all parts, of which one is held at a time."""
    total = ExactNeighbours.from_bytes(store.read_bytes(queries))
    for path in parts:
        total.merge(ExactNeighbours.from_bytes(store.read_bytes(path)))
    return total
