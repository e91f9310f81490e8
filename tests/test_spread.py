"""An index asked in tasks gives the certificate that it gives where it is open as a whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.distances import METRICS
from lookalike.exact_neighbours import ExactNeighbours
from lookalike.pipelines import certify as asked
from lookalike.pipelines.certify import Asking, Spread
from lookalike.pipelines.cli import main
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import RunnerSpec
from lookalike.pipelines.tasks import TaskRunner
from lookalike.recall import spread
from lookalike.recall.asking import Here, Question
from lookalike.recall.certificate import choose
from lookalike.recall.spread import Inquiry, deal, lay_out, shard_groups, take
from lookalike.sampling import sample_key
from lookalike.search.searcher import Searcher
from lookalike.store import shards, snapshot
from lookalike.store.exchange import references
from lookalike.store.objects import Store, open_store
from lookalike.store.runs import Run
from tests.test_certificate import untimed
from tests.vector_files import write_vectors
from tests.vector_stores import clustered, make_store

IVF = {"kind": "ivf_pq", "code_bytes": 8, "nlist": 24, "shards": 5}


def asking(
    root: Path, vectors: np.ndarray, metric: str = "cosine", options: Any = None, count: int = 150
) -> tuple[Asking, ExactNeighbours, Searcher]:
    """Of a new store, with its manifest as a run has it before it is published."""
    ids, vectors, manifest = make_store(root, vectors, metric, options=options or IVF)
    chosen = np.argsort(sample_key(1, ids))[:count]
    truth = ExactNeighbours(vectors[chosen], ids[chosen], 100, metric)
    for line in snapshot.files_of(manifest, "embedding"):
        for block_ids, block in shards.iter_blocks(root / line["path"]):
            truth.update(block_ids, block)
    store, run = open_store(root), Run(open_store(root), "0123456789abcdef")
    run.start()
    manifest = {**manifest, "counts": {"vectors": len(ids)}}
    runner = TaskRunner(run, RunnerSpec(workers=1), Progress(quiet=True))
    made = Asking(runner, f"{run.folder}/certify", manifest)
    return made, truth, Searcher(store, manifest)


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_the_certificate_of_tasks_is_that_of_an_open_index(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, whatever the groups of shards."""
    made, truth, searcher = asking(tmp_path, clustered(1500, 48, rank=30), metric)
    expected = untimed(choose(Here(searcher.index, searcher.count, truth, 10), 10, 0.95, None))
    assert len(expected["sweep"]) > 10
    assert untimed(made.certificate(truth, 0.95, None)) == expected  # in one task
    laid = lay_out(made.task_runner.store, f"{made.folder}/spread", made.manifest, truth, 10)
    for most in (1, 6000):
        groups = shard_groups(made.manifest, most)
        assert 1 < len(groups) <= 5
        assert untimed(choose(Spread(made, laid, groups, truth), 10, 0.95, None)) == expected
    monkeypatch.setattr(asked, "_GROUP_BYTES", 1)
    again = replace(made, folder=f"{made.folder}/again")
    before = (expected["nprobe"], expected["rerank"])
    near = untimed(choose(Here(searcher.index, searcher.count, truth, 10), 10, 0.95, before))
    assert untimed(again.certificate(truth, 0.95, before)) == near


@pytest.mark.parametrize("target", [0.5, 0.999])
def test_what_is_asked_in_vain_does_not_show(target: float, tmp_path: Path) -> None:
    """A target that is reached at once, and one that never is."""
    made, truth, searcher = asking(tmp_path, clustered(900, 32, rank=30), count=60)
    laid = lay_out(made.task_runner.store, f"{made.folder}/spread", made.manifest, truth, 10)
    groups = shard_groups(made.manifest, 1)
    found = choose(Spread(made, laid, groups, truth), 10, target, None)
    expected = choose(Here(searcher.index, searcher.count, truth, 10), 10, target, None)
    assert untimed(found) == untimed(expected)


def test_blocks_of_queries_are_rated_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.recall.asking._BLOCK_BYTES", 64 * 40 * 1001)
    monkeypatch.setattr("lookalike.search.vector_index._SCORED", 1000)
    made, truth, searcher = asking(tmp_path, clustered(1200, 32, rank=30), count=100)
    question = Question(4, 1000, (1, 10, 100))
    assert len(question.blocks(100)) == 3
    laid = lay_out(made.task_runner.store, f"{made.folder}/spread", made.manifest, truth, 10)
    spread_out = Spread(made, laid, shard_groups(made.manifest, 1), truth)
    exact = Question(8, 200, (10,), exact=True, stride=3)
    assert len(exact.blocks(100)) > 1
    here = Here(searcher.index, searcher.count, truth, 10)
    for one, other in zip(
        spread_out.ask([question, exact]), here.ask([question, exact]), strict=True
    ):
        for answers in (one, other):
            for answer in answers:
                assert answer.pop("seconds") >= 0
        assert one == other


def test_processes_of_their_own_answer_alike(tmp_path: Path) -> None:
    made, truth, searcher = asking(tmp_path, clustered(600, 24), count=30)
    laid = lay_out(made.task_runner.store, f"{made.folder}/spread", made.manifest, truth, 10)
    two = replace(made, task_runner=replace(made.task_runner, runner=RunnerSpec(workers=2)))
    questions = [Question(3, 50, (1, 10)), Question(2, 20, (10,), exact=True)]
    found = Spread(two, laid, shard_groups(made.manifest, 1), truth).ask(questions)
    expected = Here(searcher.index, searcher.count, truth, 10).ask(questions)
    for answer in (*found, *expected):
        assert [one.pop("seconds") >= 0 for one in answer] == [True]
    assert found == expected


def test_a_query_without_a_candidate_counts(tmp_path: Path) -> None:
    """Its lists are all empty: no shard has anything, and it is rated all the same."""
    made, truth, _ = asking(tmp_path, clustered(400, 16), count=10)
    laid = lay_out(made.task_runner.store, f"{made.folder}/spread", made.manifest, truth, 10)
    laid = Spread(made, laid, [(), ()], truth).laid
    none = Inquiry(laid, f"{made.folder}/none", ((), ()), (Question(1, 5, (1, 10)),), 10)
    store = made.task_runner.store
    dealt = [piece for n in (0, 1) for piece in references(deal(n, store, none), n)]
    assert {partition for partition, _ in dealt} == {0}
    found = take(0, [piece for _, piece in dealt], store, none)
    assert found["rows"] == 10
    assert found["answer"]["sums"] == {"1": [0.0] * 5, "10": [0.0] * 5}


def test_groups_hold_whole_shards_in_order() -> None:
    lines = [
        {"kind": "index", "path": str(n), "bytes": size} for n, size in enumerate([5, 5, 9, 1])
    ]
    manifest = {"files": lines}
    assert shard_groups(manifest, 10) == [("0", "1"), ("2", "3")]
    assert shard_groups(manifest, 4) == [("0",), ("1",), ("2",), ("3",)]
    assert shard_groups(manifest, 100) == [("0", "1", "2", "3")]
    assert shard_groups({"files": []}, 4) == [()]


@pytest.mark.slow
def test_a_run_whose_index_no_task_holds_is_certified_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nights, the second of which adds a little and forgets a little."""
    config, vectors = tmp_path / "config.yaml", clustered(3300, 32, rank=20)
    config.write_text(
        "runner: {workers: 1}\nindex: {kind: ivf_pq, shards: 3, code_bytes: 8, queries: 200}\n"
    )
    certificates: dict[bool, list[dict[str, Any]]] = {}
    opened: list[int] = []
    open_index = spread.open_index

    def watched(store: Store, manifest: Any, shards: Any = None) -> Any:
        opened.append(len(snapshot.files_of(manifest, "index") if shards is None else shards))
        return open_index(store, manifest, shards)

    monkeypatch.setattr(spread, "open_index", watched)
    for small in (False, True):
        if small:
            monkeypatch.setattr(asked, "_GROUP_BYTES", 1)
            opened.clear()
        folder, store = tmp_path / f"v{small}", tmp_path / f"s{small}"
        flags = ["--config", config, "--embeddings", folder, "--store", store]
        for night in (vectors[:3000], vectors[200:]):
            write_vectors(folder / "a.parquet", night)
            assert main(["index", *map(str, flags)]) == 0
            found = snapshot.read_manifest(open_store(store))["certificate"]
            certificates.setdefault(small, []).append(untimed(found))
        assert main(["verify", "--store", str(store)]) == 0
    assert max(opened) == 1
    assert certificates[True] == certificates[False]


def test_a_run_continued_with_another_target_is_certified_for_that(tmp_path: Path) -> None:
    config, store = tmp_path / "config.yaml", tmp_path / "store"
    write_vectors(tmp_path / "v.parquet", clustered(1500, 16))
    flags = ["--config", config, "--embeddings", tmp_path / "v.parquet", "--store", store]
    for target, floor, status in ((0.95, 1.0, 3), (0.5, 0.0, 0)):
        config.write_text(
            f"runner: {{workers: 1}}\npublish: {{min_recall: {floor}}}\n"
            f"index: {{kind: ivf_pq, nlist: 16, queries: 50, target_recall: {target}}}\n"
        )
        assert main(["index", *map(str, flags)]) == status
    assert snapshot.read_manifest(open_store(store))["certificate"]["target"] == 0.5
