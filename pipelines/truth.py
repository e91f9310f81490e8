"""Which rows are the queries of a certificate, and what has to be compared to know their truth.

A run that adds to the index compares all queries with the rows that are new, and with the others
only the queries that are new, or lost so many of their neighbours that too few are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lookalike.exact_neighbours import ExactNeighbours
from lookalike.ivf.spec import IndexSpec
from lookalike.metrics import Ids, Vectors
from lookalike.pipelines.template import living_ids
from lookalike.recall.truth import ALL, KEPT, Truth
from lookalike.sampling import sample_ids, sample_key
from lookalike.store import snapshot
from lookalike.store.objects import Store
from lookalike.store.vector_reader import VectorReader

Line = Mapping[str, Any]

ENOUGH = 0.8  # of the queries wanted; with fewer left, others are drawn


def draw(
    lines: Sequence[Line], dead: Ids, reader: VectorReader, wanted: int, spec: IndexSpec
) -> Truth:
    """So many living rows as queries, nothing being known of their neighbours."""
    seed = query_seed(spec)
    ids = sample_ids(living_ids(lines, dead), wanted, seed)
    keys = sample_key(seed, ids)
    everything = len(ids) == sum(len(block) for block in living_ids(lines, dead))
    limit = ALL if everything else int(keys.max(initial=0))
    return Truth.of(_vectors(reader, ids, spec.dim), ids, keys, limit, spec.metric)


def carried(
    store: Store, parent: Mapping[str, Any], dead: Ids, moved: Callable[[Ids], Ids] | None
) -> Truth | None:
    """The parent's truth, as far as its rows live; None where it has none."""
    lines = snapshot.files_of(parent, "truth")
    if not lines:
        return None
    truth = Truth.from_bytes(store.read_bytes(lines[0]["path"]))
    if truth.known.k != KEPT:
        return None
    if moved is None:
        return truth.living(dead)
    truth.known.query_ids = moved(truth.ids)
    return truth.restarted().take(truth.ids >= 0).living(dead)


def with_new(
    truth: Truth, added: Iterable[Ids], reader: VectorReader, wanted: int, spec: IndexSpec
) -> Truth:
    """With those of new rows, given in blocks of ids, that are queries by their keys.

    Where there come to be many more queries than are wanted, some are let go.
    """
    seed = query_seed(spec)
    drawn = [truth.drawn(ids, seed) for ids in added]
    ids = np.concatenate([np.empty(0, dtype=np.int64), *drawn])
    vectors, keys = _vectors(reader, ids, spec.dim), sample_key(seed, ids)
    new = Truth.of(vectors, ids, keys, truth.limit, spec.metric)
    return truth.join(new).thinned(wanted)


def query_seed(spec: IndexSpec) -> int:
    """Of the sample that queries are: not that of the rows trained on."""
    return spec.seed + 1


def _vectors(reader: VectorReader, ids: Ids, dim: int) -> Vectors:
    return reader.vectors(ids).reshape(len(ids), dim)


@dataclass(frozen=True)
class Comparisons:
    """What is compared: the queries with new rows, and some of them with old rows.

    Attributes:
        store: The store's root.
        folder: Where the files are, relative to it.
    """

    store: Store
    folder: str

    @property
    def all(self) -> str:
        """File of all queries, without neighbours."""
        return f"{self.folder}/queries.npz"

    @property
    def some(self) -> str:
        """File of those that are compared with old rows, too: of which too little is known."""
        return f"{self.folder}/some.npz"

    def write(self, truth: Truth) -> None:
        """Write the queries, and what is known of them."""
        every = np.ones(len(truth), dtype=bool)
        for path, chosen in ((self.some, truth.short), (self.all, every)):
            self.store.put(path, truth.unknown(chosen).to_bytes())
        self.store.put(f"{self.folder}/known.npz", truth.to_bytes())

    @cached_property
    def truth(self) -> Truth:
        """What was written."""
        return Truth.from_bytes(self.store.read_bytes(f"{self.folder}/known.npz"))

    def result(self, new: Sequence[str], old: Sequence[str]) -> Truth:
        """The truth, from files of the neighbours among new rows, and among old ones."""
        short = self.truth.short
        among_new = self._merged(self.all, new)
        among_all = self._merged(self.some, old)
        part = self.truth.unknown(short)
        part.ids, part.scores = among_new.ids[short], among_new.scores[short]
        among_all.merge(part)
        return self.truth.updated(among_new).put(short, self.truth.take(short).compared(among_all))

    def _merged(self, queries: str, paths: Sequence[str]) -> ExactNeighbours:
        total, *others = (
            ExactNeighbours.from_bytes(self.store.read_bytes(path)) for path in (queries, *paths)
        )
        for other in others:
            total.merge(other)
        return total
