"""Certification as a search in tasks: one that opens a small index, or many of a large one.

The launching process holds the queries and what was counted, and decides; it opens no index.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np

from lookalike.exact_neighbours import ExactNeighbours
from lookalike.pipelines.tasks import TaskRunner
from lookalike.recall.asking import Answer, Question, Rater
from lookalike.recall.certificate import choose
from lookalike.recall.spread import (
    CertifyTask,
    Inquiry,
    Laid,
    certify_index,
    deal,
    lay_out,
    shard_groups,
    take,
)
from lookalike.store.manifest import Certificate, Manifest
from lookalike.store.meeting import Meeting

K = 10  # of the recall that is certified
_GROUP_BYTES = 4 << 30  # of index shards that one task maps


@dataclass(frozen=True)
class Asking:
    """Asks the index of a run.

    Attributes:
        task_runner: Has tasks of the run done.
        folder: Of what tasks leave, relative to the store.
        manifest: Of the snapshot that is being made, with its index.
    """

    task_runner: TaskRunner
    folder: str
    manifest: Manifest

    def certificate(
        self, truth: ExactNeighbours, target: float, before: tuple[int, int] | None
    ) -> Certificate:
        """The certificate (see `lookalike.recall.certificate.choose`)."""
        store = self.task_runner.store
        laid = lay_out(store, self.folder, self.manifest, truth, K)
        groups = shard_groups(self.manifest, _GROUP_BYTES)
        if len(groups) > 1:
            return choose(Spread(self, laid, groups, truth), K, target, before)
        digest = hashlib.sha256(repr((target, before)).encode()).hexdigest()[:12]
        task = CertifyTask(laid, target, before, f"{self.folder}/certified-{digest}.json")
        [found] = self.task_runner.run(("certify", "snapshots"), [task], certify_index)
        return cast(Certificate, found)


class Spread:
    """A `Trial` of an index that tasks open, each a group of its shards."""

    at_once = 4  # a pipeline takes long to start, and what is asked in vain costs little

    def __init__(
        self, asking: Asking, laid: Laid, groups: Sequence[tuple[str, ...]], truth: ExactNeighbours
    ) -> None:
        """Learn the lists of the queries' neighbours, and put them beside what is laid out."""
        self._asking, self._store, self.truth, self.rows = (
            asking,
            asking.task_runner.store,
            truth,
            laid.rows,
        )
        index = laid.index(self._store, ())
        self.spec, buffer = index.spec, io.BytesIO()
        np.save(buffer, Rater(index, laid.rows, truth, laid.k).lists)
        path = f"{asking.folder}/lists.npy"
        self._store.put(path, buffer.getvalue())
        self.laid, self._groups = replace(laid, lists=path), tuple(groups)

    def ask(self, questions: Sequence[Question]) -> list[list[Answer]]:
        """See `Trial`."""
        asking, queries = self._asking, len(self.truth.query_ids)
        digest = hashlib.sha256(repr((questions, self._groups)).encode()).hexdigest()[:12]
        folder = f"{asking.folder}/{digest}"
        inquiry = Inquiry(self.laid, folder, self._groups, tuple(questions), queries)
        meeting = Meeting(
            "certify",
            len(self._groups),
            partial(deal, inquiry=inquiry),
            partial(take, inquiry=inquiry),
            f"{folder}/dealt",
            f"{folder}/taken",
        )
        found = asking.task_runner.exchange(meeting)
        answers = iter(found[number]["answer"] for number in range(len(inquiry.parts)))
        return [[next(answers) for _ in question.blocks(queries)] for question in questions]
