"""Queries as a Beam job: the answers of a searcher, whatever the workers, shards and retries."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import lookalike
from lookalike.distances import METRICS
from lookalike.pipelines.batch_query import BeamIndex, batch_answers
from lookalike.pipelines.cli import main
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import EngineError, RunnerSpec
from lookalike.search import answering, batch_search
from lookalike.search.answering import answer
from lookalike.search.asked import Exclude, asked_exclusions
from lookalike.search.batch_search import Batch, BatchSpec, cut, read_answers, write_batch
from lookalike.search.queries import Queries
from lookalike.search.searcher import Searcher
from lookalike.search.ways import Ways
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from lookalike.store.storage import place_below
from lookalike.store.tombstones import write_tombstones
from tests import publishing
from tests.s3_server import store_uri
from tests.vector_stores import clustered, make_store

ROWS, DIM, QUERIES = 3000, 32, 60
SEARCH = {"search": {"nprobe": 3, "rerank": 40}}
OPTIONS = {"kind": "ivf_pq", "nlist": 48, "nbits": 4, "shards": 3}
VECTORS = clustered(ROWS + QUERIES, DIM)
ASKED = VECTORS[ROWS:]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three index shards over five embedding shards."""
    folder = tmp_path_factory.mktemp("store")
    _, _, manifest = make_store(folder, VECTORS[:ROWS], files=5, options=OPTIONS, extra=SEARCH)
    assert len(snapshot.files_of(manifest, "index")) == 3
    return folder


@pytest.fixture(scope="module")
def half_forgotten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `store`, with every second row, and all of the second embedding shard, forgotten."""
    folder = tmp_path_factory.mktemp("forgotten")
    ids, _, manifest = make_store(folder, VECTORS[:ROWS], files=5, options=OPTIONS, extra=SEARCH)
    gone = np.concatenate([ids[::2], ids[(ids >> 32) == 6]])
    record = write_tombstones(open_store(folder), "snapshots/one/tombstones.npy", gone)
    line = {**record.to_json(), "kind": "tombstones"}
    publishing.publish(open_store(folder), {**manifest, "files": [*manifest["files"], line]})
    return folder


def on_beam(searcher: Searcher, scratch: Path, workers: int = 1) -> BeamIndex:
    return BeamIndex(searcher, str(scratch), RunnerSpec(workers=workers), Progress(quiet=True))


def ask(
    searcher: Searcher,
    scratch: Path,
    k: int = 10,
    where: str | None = None,
    workers: int = 1,
    ways: Ways = Ways(),  # noqa: B008
) -> tuple[np.ndarray, np.ndarray]:
    index = on_beam(searcher, scratch, workers)
    batches = [
        Queries([str(i) for i in rows], ASKED[rows]) for rows in np.split(np.arange(QUERIES), 3)
    ]
    (found,) = batch_answers(searcher, index, batches, k, ways, where=where)
    assert found.names == [str(i) for i in range(QUERIES)]
    assert not any(scratch.iterdir()), "nothing is left behind"
    return found.ids, found.scores


@pytest.mark.parametrize("workers", [1, 2])
def test_the_answers_are_those_of_a_searcher(store: Path, tmp_path: Path, workers: int) -> None:
    searcher = lookalike.open(store)
    expected = searcher.search_vectors(ASKED, 10)
    found = ask(searcher, tmp_path, workers=workers)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["exact", "ivf_sq", "ivf_pq"])
def test_every_kind_and_metric(kind: str, metric: str, tmp_path: Path) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    make_store(tmp_path / "store", VECTORS[:400], metric, options={"kind": kind})
    searcher = lookalike.open(tmp_path / "store")
    asked = np.abs(ASKED)
    expected = searcher.search_vectors(asked, 10)
    index = on_beam(searcher, scratch)
    (found,) = batch_answers(searcher, index, [Queries(["?"] * QUERIES, asked)], 10, Ways())
    np.testing.assert_array_equal(found.ids, expected[0])
    np.testing.assert_array_equal(found.scores, expected[1])


def test_ways_to_ask_are_those_of_a_searcher(store: Path, tmp_path: Path) -> None:
    searcher = lookalike.open(store)
    ways = Ways(group_by="label", per_group=2, diversify=0.6)
    expected = searcher.answer(Queries([""] * QUERIES, ASKED), 5, ways)
    found = ask(searcher, tmp_path, 5, ways=ways)
    np.testing.assert_array_equal(found[0], expected.ids)
    np.testing.assert_array_equal(found[1], expected.scores)


def test_small_blocks_and_several_blocks_for_a_scan(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_search, "BLOCK_ROWS", 7)
    monkeypatch.setattr(batch_search, "_TOGETHER", 3)
    assert cut(QUERIES, 40, 3, 1) == (7, 4)
    searcher = lookalike.open(store)
    expected = searcher.search_vectors(ASKED, 10)
    found = ask(searcher, tmp_path)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_filter_is_heeded(store: Path, tmp_path: Path, workers: int) -> None:
    """Few rows match, so all of them are compared."""
    searcher = lookalike.open(store)
    where = "label = 'group 1'"
    expected = searcher.search_vectors(ASKED, 10, where=where)
    found = ask(searcher, tmp_path, where=where, workers=workers)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_queries_that_come_out_short_are_searched_more_widely(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By further pipelines, of those queries alone."""
    monkeypatch.setattr(answering, "_few", lambda *_: False)
    asked: list[tuple[int, int]] = []

    class Noting(BeamIndex):
        def search(self, queries: Any, k: int, nprobe: int, *more: Any) -> Any:
            asked.append((nprobe, len(queries)))
            return super().search(queries, k, nprobe, *more)

    monkeypatch.setattr(sys.modules[__name__], "BeamIndex", Noting)
    searcher = lookalike.open(store)
    # The rows nearest to one vector lie in few lists, and other queries look elsewhere first.
    near = np.argsort(-(VECTORS[:ROWS] @ VECTORS[0]))[:400]
    where = f"uri in ({', '.join(repr(f'/pictures/{row}.png') for row in near)})"
    expected = searcher.search_vectors(ASKED, 20, where=where)
    found = ask(searcher, tmp_path, 20, where)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert (found[0] >= 0).all()
    assert asked[0][1] == QUERIES
    assert len(asked) > 1
    assert asked[1][0] > asked[0][0]


def test_no_row_that_matches(store: Path, tmp_path: Path) -> None:
    ids, scores = ask(lookalike.open(store), tmp_path, where="uri is null")
    assert ids.shape == scores.shape == (QUERIES, 0)


@pytest.mark.parametrize("k", [10, 5000])
def test_forgotten_rows_are_in_no_answer(half_forgotten: Path, tmp_path: Path, k: int) -> None:
    """For a k beyond the rows, the search widens until all are found."""
    searcher = lookalike.open(half_forgotten)
    expected = searcher.search_vectors(ASKED, k)
    found = ask(searcher, tmp_path, k)
    assert found[0].shape == (QUERIES, min(k, searcher.count))
    assert not ((found[0] >> 32) == 6).any()
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("exclude", [None, [5 << 32, (7 << 32) + 3], [[i] for i in range(QUERIES)]])
def test_each_query_may_leave_out_ids(store: Path, tmp_path: Path, exclude: Exclude) -> None:
    searcher = lookalike.open(store)
    if exclude is not None and len(exclude) == QUERIES:  # the nearest of each query
        exclude = [[one] for one in searcher.search_vectors(ASKED, 1)[0][:, 0].tolist()]
    without = asked_exclusions(exclude, QUERIES)
    request = searcher.request(5, excluded=without.shape[1])
    found = answer(on_beam(searcher, tmp_path), ASKED, request, without)
    expected = searcher.search_vectors(ASKED, 5, exclude=exclude)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_store_and_scratch_may_lie_on_object_storage(store: Path, s3: int, tmp_path: Path) -> None:
    pytest.importorskip("obstore")
    uri = store_uri(s3, "batch")
    local, bucket = open_store(store), open_store(uri)
    for path in local.files(""):
        bucket.put(path, local.read_bytes(path))
    searcher = lookalike.open(uri, cache=tmp_path)
    scratch = place_below(uri, "runs")
    assert open_store(scratch).uri == f"{bucket}/runs"
    index = BeamIndex(searcher, scratch, RunnerSpec(workers=1), Progress(quiet=True))
    batches = [Queries(["?"] * QUERIES, ASKED)]
    for where in (None, "label = 'group 1'"):
        (found,) = batch_answers(searcher, index, batches, 10, Ways(), where=where)
        expected = lookalike.open(store).search_vectors(ASKED, 10, where=where)
        np.testing.assert_array_equal(found.ids, expected[0])
        np.testing.assert_array_equal(found.scores, expected[1])
    assert not [path for path in bucket.files("runs") if "batch" in path]


def batch_spec(store: Path, folder: Path, **settings: int) -> BatchSpec:
    """A search in a folder, laid out."""
    searcher = lookalike.open(store)
    lines = snapshot.files_of(searcher.manifest, "index")
    name = searcher.manifest["index"]["template"]
    files = {
        line["file_no"]: line["path"] for line in snapshot.files_of(searcher.manifest, "embedding")
    }
    spec = BatchSpec(
        str(store),
        str(folder),
        f"templates/{name}",
        name,
        tuple(one["path"] for one in lines),
        files,
        queries=QUERIES,
        block_rows=25,
        together=2,
        k=10,
        depth=40,
        **{"nprobe": 3, **settings},
    )
    write_batch(spec, ASKED, asked_exclusions(None, QUERIES), None)
    return spec


def test_steps_in_any_order_and_after_a_failure_write_the_same(store: Path, tmp_path: Path) -> None:
    spec = batch_spec(store, tmp_path / "one")
    batch, again = Batch(spec), Batch(batch_spec(store, tmp_path / "again"))
    hidden = store / spec.shards[1]
    shards = [batch.coarse(block) for block in range(spec.blocks)]
    assert [set(one) <= {0, 1, 2} for one in shards] == [True] * 3
    for number in (0, 1, 2):
        batch.scan(number, [block for block in range(3) if number in shards[block]])
    for block in range(3):
        batch.answer(block, shards[block])
    first = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    again.coarse(0)
    hidden.rename(store / "away")
    with pytest.raises(Exception, match=hidden.name):
        again.scan(1, [0])
    (store / "away").rename(hidden)
    for block in (2, 1):
        again.coarse(block)
    for number in (2, 1, 0):
        again.scan(number, [block for block in (2, 0, 1) if number in shards[block]])
    for block in (1, 0, 2):
        again.answer(block, reversed(shards[block]))
    found = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert found == first
    expected = lookalike.open(store).search_vectors(ASKED, 10)[0]
    np.testing.assert_array_equal(read_answers(spec)[0], expected)


def test_of_attempts_that_choose_other_lists_the_first_counts(store: Path, tmp_path: Path) -> None:
    """As on a machine that rounds otherwise: what follows is all of one choice."""
    first, other = (Batch(batch_spec(store, tmp_path, nprobe=nprobe)) for nprobe in (1, 8))
    alone = Batch(batch_spec(store, tmp_path / "alone", nprobe=1))
    alone.coarse(0)
    chosen = first.coarse(0)
    assert other.coarse(0) == chosen
    for number in chosen:
        other.scan(number, [0])
        alone.scan(number, [0])
    for batch in (other, alone):
        batch.answer(0, chosen)
    for name in ("coarse-000000.npz", "answers-000000.npz"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_a_lost_file_ends_the_job_by_name_and_the_next_one_answers(
    store: Path, tmp_path: Path
) -> None:
    searcher = lookalike.open(store)
    hidden = store / snapshot.files_of(searcher.manifest, "embedding")[2]["path"]
    hidden.rename(store / "away")
    try:
        with pytest.raises(EngineError, match=hidden.name):
            ask(searcher, tmp_path)
    finally:
        (store / "away").rename(hidden)
    assert not any(tmp_path.iterdir())
    np.testing.assert_array_equal(ask(searcher, tmp_path)[0], searcher.search_vectors(ASKED, 10)[0])


def test_blocks_fit_memory_and_keep_workers_busy() -> None:
    assert cut(1, 100, 3, 16) == (1, 1)
    assert cut(1000, 100, 1, 4) == (250, 1)
    assert cut(10**6, 100, 64, 16) == (4096, 16)
    rows, together = cut(10**6, 10**6, 64, 16)
    assert rows * 10**6 <= 1 << 22
    assert together == 16
    rows, together = cut(100_000, 100, 4, 16)  # 25 blocks and 4 shards
    assert 4 * -(-25 // together) >= 64


# --- the command ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_the_command_writes_the_same_rows(
    store: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "queries.npy", ASKED)
    asked = ["query", "--store", str(store), "--vectors", str(tmp_path / "queries.npy"), "-k", "7"]
    outputs = [tmp_path / f"plain{suffix}", tmp_path / f"beam{suffix}"]
    assert main([*asked, "--output", str(outputs[0])]) == 0
    (scratch := tmp_path / "scratch").mkdir()
    asked += ["--beam", "--scratch", str(scratch)]
    config = tmp_path / "config.yaml"
    config.write_text("runner: {workers: 1}\n")
    assert main([*asked, "--config", str(config), "--output", str(outputs[1])]) == 0
    error = capsys.readouterr().err
    assert "search: " in error
    assert f"{QUERIES} queries answered: {outputs[1]}" in error
    assert not any(scratch.iterdir())
    if suffix == ".parquet":
        tables = [pq.read_table(path) for path in outputs]
        assert tables[0].num_rows == 7 * QUERIES
        assert tables[0].equals(tables[1])
    else:
        rows = [json.loads(line) for line in outputs[1].read_text().splitlines()]
        assert len(rows) == 7 * QUERIES
        assert outputs[0].read_text() == outputs[1].read_text()


def test_pictures_are_queries_too(
    indexed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, folder = indexed
    asked = ["query", "--store", str(store), "--images", str(folder / "first"), "--json"]
    assert main(asked) == 0
    expected = capsys.readouterr().out
    config = tmp_path / "config.yaml"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )
    assert main([*asked, "--beam", "--config", str(config)]) == 0
    assert capsys.readouterr().out == expected


def test_other_engines_need_a_folder_that_their_workers_share(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "queries.npy", ASKED)
    (config := tmp_path / "config.yaml").write_text("runner: {name: flink}\n")
    asked = ["query", "--store", str(store), "--vectors", str(tmp_path / "queries.npy"), "--beam"]
    assert main([*asked, "--config", str(config)]) == 2
    assert "--beam on runner flink needs --scratch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--scratch nowhere --beam", "--scratch nowhere: no such folder"),
        ("--scratch .", "--scratch .: only with --beam"),
        ("-- --streaming", "Beam options after --: only with --beam"),
        ("--beam --where weight=3", "there is no column weight"),
    ],
)
def test_wrong_requests_are_refused(
    store: Path, tmp_path: Path, more: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "queries.npy", ASKED)
    asked = ["query", "--store", str(store), "--vectors", str(tmp_path / "queries.npy")]
    assert main([*asked, *more.split()]) == 2
    assert message in capsys.readouterr().err
