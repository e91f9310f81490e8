"""Neighbours found among some rows each, put together in tasks of a few files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lookalike.exact_neighbours import ExactNeighbours
from lookalike.pipelines import truth
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import RunnerSpec
from lookalike.pipelines.tasks import TaskRunner
from lookalike.recall.truth import merged
from lookalike.store.objects import open_store
from lookalike.store.runs import Run
from tests.vector_stores import clustered


@pytest.mark.parametrize("parts", [1, 3, 9, 11])
def test_files_are_put_together_until_they_are_few(
    parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tasks of three files, over as many levels as it takes; a second time nothing is done."""
    monkeypatch.setattr(truth, "_TOGETHER", 3)
    store, vectors = open_store(tmp_path), clustered(220, 8)
    run, ids = Run(store, "0123456789abcdef"), np.arange(220)
    run.start()

    def asked() -> ExactNeighbours:
        return ExactNeighbours(vectors[:5], ids[:5], 12, "cosine")

    queries = store.put(f"{run.folder}/queries.npz", asked().to_bytes()).path
    paths, whole = [], asked()
    whole.update(ids, vectors)
    for number, rows in enumerate(np.array_split(ids, parts)):
        found = asked()
        found.update(rows, vectors[rows])
        paths.append(store.put(f"{run.folder}/parts/{number}.npz", found.to_bytes()).path)
    for _ in range(2):
        runner = TaskRunner(run, RunnerSpec(workers=1), Progress(quiet=True))
        few = truth.combined(runner, f"{run.folder}/merged", queries, paths)
        assert len(few) <= 3
        total = merged(store, queries, few)
        assert np.array_equal(total.ids, whole.ids)
        assert np.array_equal(total.scores, whole.scores)
    written = store.files(f"{run.folder}/merged", ".npz")
    assert len(written) == {1: 0, 3: 0, 9: 3, 11: 6}[parts]
