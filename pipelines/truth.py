"""Which rows are the queries of a certificate, and what has to be compared to know their truth.

A run that adds to the index compares all queries with the rows that are new, and with the others
only the queries that are new, or lost so many of their neighbours that too few are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lookalike.distances import Ids
from lookalike.ivf.drawing import Draw, Drawn
from lookalike.ivf.spec import IndexSpec
from lookalike.pipelines.tasks import TaskRunner
from lookalike.recall.truth import CROWDED, KEPT, MergeTask, Truth, merge_parts, merged
from lookalike.sampling import ALL, sample_key
from lookalike.store import snapshot
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store

_TOGETHER = 32  # files of neighbours that one task puts together
ENOUGH = 0.8  # of the queries wanted; with fewer left, others are drawn


def chosen(drawn: Drawn, living: int, spec: IndexSpec) -> Truth:
    """A sample of the living rows as queries, nothing being known of their neighbours."""
    keys = sample_key(query_seed(spec), drawn.ids)
    limit = ALL if len(drawn) == living else int(keys.max(initial=0))
    return Truth.of(drawn[:], drawn.ids, keys, limit, spec.metric)


def carried(
    store: Store, parent: Manifest, deleted: Ids, moved: Callable[[Ids], Ids] | None
) -> Truth | None:
    """The parent's truth, as far as its rows live; None where it has none."""
    lines = snapshot.files_of(parent, "truth")
    if not lines:
        return None
    truth = Truth.from_bytes(store.read_bytes(lines[0]["path"]))
    if truth.known.k != KEPT:
        return None
    if moved is None:
        return truth.living(deleted)
    truth.known.query_ids = moved(truth.ids)
    return truth.restarted().take(truth.ids >= 0).living(deleted)


def with_new(truth: Truth, drawn: Drawn, wanted: int, spec: IndexSpec) -> Truth:
    """With those of new rows that are queries by their keys (see `draw_of_new`).

    Where there come to be many more queries than are wanted, some are let go.
    """
    keys = sample_key(query_seed(spec), drawn.ids)
    new = Truth.of(drawn[:], drawn.ids, keys, truth.limit, spec.metric)
    return truth.join(new).thinned(wanted)


def draw_of_new(truth: Truth, wanted: int, spec: IndexSpec) -> Draw:
    """Those of new rows that become queries: no more than are needed to know whom to let go."""
    return Draw(query_seed(spec), int(CROWDED * wanted) + 1, truth.limit)


def query_seed(spec: IndexSpec) -> int:
    """Of the sample that queries are: not that of the rows trained on."""
    return spec.seed + 1


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

    @property
    def known(self) -> str:
        """File of the queries, and what is known of them."""
        return f"{self.folder}/known.npz"

    @property
    def there(self) -> bool:
        """Whether they were written."""
        return self.store.has(self.known)

    def write(self, truth: Truth) -> None:
        """Write the queries, and what is known of them: that last."""
        every = np.ones(len(truth), dtype=bool)
        for path, chosen in ((self.some, truth.short), (self.all, every)):
            self.store.put(path, truth.unknown(chosen).to_bytes())
        self.store.put(self.known, truth.to_bytes())

    @cached_property
    def truth(self) -> Truth:
        """What was written."""
        return Truth.from_bytes(self.store.read_bytes(self.known))

    def result(self, new: Sequence[str], old: Sequence[str]) -> Truth:
        """The truth, from files of the neighbours among new rows, and among old ones."""
        short = self.truth.short
        among_new = merged(self.store, self.all, new)
        among_all = merged(self.store, self.some, old)
        part = self.truth.unknown(short)
        part.ids, part.scores = among_new.ids[short], among_new.scores[short]
        among_all.merge(part)
        return self.truth.updated(among_new).put(short, self.truth.take(short).compared(among_all))


def combined(
    task_runner: TaskRunner,
    folder: str,
    queries: str,
    parts: Sequence[str],
) -> Sequence[str]:
    """Files of neighbours put together by tasks, until they are few.

    Args:
        task_runner: Has tasks of the run done.
        folder: For the files.
        queries: File of the queries, without neighbours.
        parts: Files of their neighbours among some rows each.
    """
    level = 0
    while len(parts) > _TOGETHER:
        tasks = [
            MergeTask(
                number,
                queries,
                tuple(parts[start : start + _TOGETHER]),
                f"{folder}/{level}/{number:05d}",
                f"{folder}/{level}/{number:05d}.json",
            )
            for number, start in enumerate(range(0, len(parts), _TOGETHER))
        ]
        records = task_runner.run(("merge", "parts of the truth"), tasks, merge_parts)
        parts, level = [record["truth"]["path"] for record in records], level + 1
    return parts
