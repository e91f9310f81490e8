"""Drawing rows of a store: the queries, those to train on, those that drift is measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.batching import at_least
from lookalike.distances import Ids
from lookalike.ivf.drawing import Draw, Drawn, DrawTask, Span, draw
from lookalike.pipelines.tasks import TaskRunner
from lookalike.store.attempts import Record
from lookalike.store.objects import Store

_WORTH_A_PROCESS = 1 << 29  # bytes of vectors: fewer are copied before another has started


@dataclass(frozen=True)
class Samples:
    """Samples as they were drawn.

    Attributes:
        store: The store's root.
        dim: Components of a vector.
        done: Paths of the tasks' records.
        records: What they say.
        draws: What was drawn.
    """

    store: Store
    dim: int
    done: tuple[str, ...]
    records: list[Record]
    draws: tuple[Draw, ...]

    def __getitem__(self, number: int) -> Drawn:
        """The sample with a number."""
        return Drawn(self.store, self.records, number, self.draws[number], self.dim)


@dataclass(frozen=True)
class Sampler:
    """Draws samples for one run.

    Attributes:
        task_runner: Has tasks of the run done.
        dim: Components of a vector.
        deleted: Tombstones, ascending.
        removed: Their file; "" where there are none.
    """

    task_runner: TaskRunner
    dim: int
    deleted: Ids
    removed: str

    def draw(self, spans: Sequence[Span], rows: int, *draws: Draw) -> Samples:
        """Samples of the living rows in some spans, all in one go.

        Args:
            spans: Where to draw from.
            rows: That one task looks at, about.
            draws: What to draw.
        """
        store, tasks = self.task_runner.store, list[DrawTask]()
        groups = list(at_least(((span, span.rows) for span in spans), rows))
        digest = hashlib.sha256(repr((groups, draws)).encode())
        digest.update(self.deleted.tobytes())
        folder = f"{self.task_runner.scratch.folder}/drawn-{digest.hexdigest()[:12]}"
        for number, group in enumerate(groups):
            place = f"{folder}/{number:05d}"
            tasks.append(
                DrawTask(number, group, self.dim, draws, place, f"{place}.json", self.removed)
            )
        wanted = sum(min(one.count, sum(span.rows for span in spans)) for one in draws)
        some = self.task_runner.worth(4 * self.dim * wanted, _WORTH_A_PROCESS)
        records = some.run(("sample", "parts"), tasks, draw)
        return Samples(store, self.dim, tuple(task.done for task in tasks), records, draws)
