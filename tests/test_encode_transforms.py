"""Encoding and grouping on the direct runner: equal results whatever the workers and retries."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from lookalike.errors import RequestError
from lookalike.exact_neighbours import ExactNeighbours
from lookalike.ivf.encoding import EncodeTask
from lookalike.ivf.grouping import GroupTask
from lookalike.ivf.tasks import encode_tasks, group_tasks
from lookalike.ivf.trained_index import TrainedIndex, write_trained_index
from lookalike.pipelines.engine import run
from lookalike.pipelines.runner import RunnerSpec
from lookalike.store import shard_format, shards
from lookalike.store.durable import read_json, write_bytes
from lookalike.store.objects import open_store
from lookalike.transforms.encode import EncodeParts, GroupLists
from tests.vector_stores import trained


def prepare(store: Path) -> tuple[TrainedIndex, list[EncodeTask]]:
    """A trained index, queries, embedding files of unequal length, and the tasks to encode them."""
    data, spec, vectors = trained(400, 24, nlist=8, nbits=4)
    trained_index = TrainedIndex(data, spec)
    assert write_trained_index(open_store(store), spec, data, {})[0] == trained_index.sha256
    held_out = ExactNeighbours(vectors[:5], np.arange(5) + (1 << 32), 10, spec.metric)
    write_bytes(store, "runs/queries.npz", held_out.to_bytes())
    schema = shard_format.schema(24, pa.schema([]), {})
    paths = []
    for number, rows in enumerate(np.split(np.arange(400), [100, 130, 300]), start=1):
        paths.append(f"embeddings/{number:06d}.parquet")
        with shards.open_shard(open_store(store), paths[-1], schema, number) as (writer, _):
            for row in rows:
                fields = {
                    "uri": f"/{row}.png",
                    "content_sha256": b"\0" * 32,
                    "width": 4,
                    "height": 3,
                    "format": "PNG",
                    "bytes": 9,
                }
                writer.append(fields, vectors[row])
    return trained_index, encode_tasks([[path] for path in paths], "runs", "")


def build(
    store: Path, trained_index: TrainedIndex, tasks: list[EncodeTask], workers: int
) -> list[bytes]:
    """The bytes of every index shard, and of the merged truth."""
    runner = RunnerSpec(name="direct", workers=workers)

    def transform(name: str, items: list[object], transform: beam.PTransform) -> None:
        def chain(pipeline: beam.Pipeline) -> None:
            _ = pipeline | f"{name}Tasks" >> beam.Create(items, reshuffle=False) | name >> transform

        run(chain, runner)

    encode = EncodeParts(str(store), trained_index.sha256, "runs/queries.npz")
    transform("Encode", [*tasks], encode)
    groups = group_tasks(open_store(store), tasks, trained_index, 3, "runs", "index/{}".format)
    transform("Group", [*groups], GroupLists(str(store), trained_index.sha256))
    truth = ExactNeighbours.from_bytes((store / "runs/queries.npz").read_bytes())
    for task in tasks:
        truth.merge(ExactNeighbours.from_bytes(output(store, task, "truth").read_bytes()))
    rows = sum(read_json(store / task.done)["shard"]["rows"] for task in groups)
    assert rows == 400
    return [*(output(store, task).read_bytes() for task in groups), truth.to_bytes()]


def output(store: Path, task: EncodeTask | GroupTask, name: str = "shard") -> Path:
    """The path of what a task made: its part or shard, or its truth."""
    return store / str(read_json(store / task.done)[name]["path"])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    store = tmp_path_factory.mktemp("one")
    return build(store, *prepare(store), workers=1)


@pytest.mark.slow
def test_two_workers_write_the_same_shards_and_truth(tmp_path: Path, expected: list[bytes]) -> None:
    assert build(tmp_path, *prepare(tmp_path), workers=2) == expected


def test_a_task_that_failed_once_changes_nothing(tmp_path: Path, expected: list[bytes]) -> None:
    trained_index, tasks = prepare(tmp_path)
    hidden = tmp_path / tasks[2].embeddings[0]
    hidden.rename(tmp_path / "away")
    with pytest.raises(Exception, match=r"000003\.parquet"):
        build(tmp_path, trained_index, tasks, workers=1)
    assert not (tmp_path / tasks[2].done).exists()
    (tmp_path / "away").rename(hidden)
    assert build(tmp_path, trained_index, tasks, workers=1) == expected


def test_what_every_task_needs_is_looked_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_index, _ = prepare(tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    assert EncodeParts(tmp_path.name, trained_index.sha256).work.store == open_store(tmp_path)
    for transform in (EncodeParts, GroupLists):
        with pytest.raises(RequestError, match="has no templates/other; write one with"):
            transform(str(tmp_path), "other")
        with pytest.raises(RequestError, match="elsewhere has no templates/"):
            transform("elsewhere", trained_index.sha256)
    with pytest.raises(RequestError, match=r"has no runs/other\.npz"):
        EncodeParts(str(tmp_path), trained_index.sha256, "runs/other.npz")
    with pytest.raises(RequestError, match="threads: needs a whole number from 1, got 0"):
        EncodeParts(str(tmp_path), trained_index.sha256, threads=0)


def test_no_queries_give_no_truth_and_the_same_index(tmp_path: Path, expected: list[bytes]) -> None:
    trained_index, tasks = prepare(tmp_path)

    def chain(pipeline: beam.Pipeline) -> None:
        _ = pipeline | beam.Create(tasks) | EncodeParts(str(tmp_path), trained_index.sha256)

    run(chain, RunnerSpec(workers=1))
    for task in tasks:
        assert not len(
            ExactNeighbours.from_bytes(output(tmp_path, task, "truth").read_bytes()).queries
        )
    groups = group_tasks(open_store(tmp_path), tasks, trained_index, 3, "runs", "index/{}".format)

    def regroup(pipeline: beam.Pipeline) -> None:
        _ = pipeline | beam.Create(groups) | GroupLists(str(tmp_path), trained_index.sha256)

    run(regroup, RunnerSpec(workers=1))
    assert [output(tmp_path, task).read_bytes() for task in groups] == expected[:-1]


def test_one_group_is_the_finished_shard(tmp_path: Path) -> None:
    trained_index, tasks = prepare(tmp_path)
    [whole] = encode_tasks([[task.embeddings[0] for task in tasks]], "runs", "index/whole")
    assert (whole.whole, whole.output) == (True, "index/whole")
    assert (
        group_tasks(open_store(tmp_path), [whole], trained_index, 3, "runs", "index/{}".format)
        == []
    )
