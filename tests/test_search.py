from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

import lookalike
from lookalike.distances import METRICS, score
from lookalike.errors import RequestError
from lookalike.ivf import trained_index as index
from lookalike.ivf.planner import plan
from lookalike.ivf.train import train
from lookalike.store import snapshot
from lookalike.store.durable import write_bytes, write_json
from lookalike.store.objects import open_store
from lookalike.store.tombstones import write_tombstones
from lookalike.store.vector_reader import VectorReader
from tests import publishing
from tests.vector_stores import best, brute_force, clustered, make_store


@pytest.fixture(autouse=True)
def _one_thread():
    index.set_threads(1)


@pytest.mark.parametrize("metric", METRICS)
def test_an_exact_store_answers_as_brute_force_does(metric, tmp_path):
    ids, vectors, _ = make_store(tmp_path, clustered(300, 20), metric)
    queries = np.abs(clustered(12, 20, seed=1)) if metric == "jaccard" else clustered(12, 20, 1)
    expected = brute_force(queries, vectors, metric)
    searcher = lookalike.open(tmp_path)
    assert (searcher.dim, searcher.metric, searcher.count) == (20, metric, 300)
    found, scores = searcher.search_vectors(queries, 15)
    order = best(expected, 15, metric)
    np.testing.assert_array_equal(found, ids[order])
    np.testing.assert_allclose(scores, np.take_along_axis(expected, order, 1), rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_shards_merge_to_what_one_shard_answers(metric, tmp_path):
    vectors = clustered(600, 24)
    answers = []
    for number in (1, 4):
        store = tmp_path / str(number)
        options = {"kind": "ivf_pq", "shards": number}
        make_store(store, vectors, metric, options=options)
        searcher = lookalike.open(store)
        queries = np.abs(vectors[:30]) if metric == "jaccard" else vectors[:30]
        answers.append(searcher.search_vectors(queries, 10, nprobe=3, rerank=40))
    np.testing.assert_array_equal(answers[0][0], answers[1][0])
    np.testing.assert_array_equal(answers[0][1], answers[1][1])


@pytest.mark.parametrize("metric", METRICS)
def test_every_vector_finds_itself_first(metric, tmp_path):
    options = {"kind": "ivf_pq", "shards": 4}
    ids, vectors, _ = make_store(tmp_path, clustered(500, 24), metric, options=options)
    if metric == "inner_product":  # where a longer vector may rank above the query itself
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        ids, vectors, _ = make_store(tmp_path / "unit", vectors, metric, options=options)
    store = tmp_path / "unit" if metric == "inner_product" else tmp_path
    found, scores = lookalike.open(store).search_vectors(vectors, 1)
    assert (found[:, 0] == ids).mean() > 0.99
    # Exact scores: a distance of nothing, a likeness of one.
    np.testing.assert_allclose(scores[:, 0], 0 if metric == "l2" else 1, atol=1e-4)


def test_more_neighbours_than_there_are_gives_all_there_are(tmp_path):
    options = {"kind": "ivf_pq", "shards": 4, "nlist": 8}
    ids, vectors, _ = make_store(tmp_path, clustered(200, 16), options=options)
    searcher = lookalike.open(tmp_path)
    found, scores = searcher.search_vectors(vectors[:3], 1000, nprobe=1)
    assert found.shape == scores.shape == (3, 200)
    assert (np.sort(found, axis=1) == np.sort(ids)).all()
    assert np.isfinite(scores).all()
    # However large k is, nothing is allocated for it.
    assert searcher.search_vectors(vectors[:3], 10**12, rerank=10**12)[0].shape == (3, 200)
    assert len(searcher.search(vectors=vectors[:1], k=10**12)[0]) == 200


def test_answers_that_come_out_short_scan_more_lists(tmp_path):
    options = {"kind": "ivf_pq", "nlist": 16}
    make_store(tmp_path, clustered(320, 16), options=options)
    searcher = lookalike.open(tmp_path)
    candidates, _ = searcher.index.candidates(clustered(20, 16), 1, 100)
    assert ((candidates >= 0).sum(axis=1) < 100).all()
    found, _ = searcher.search_vectors(clustered(20, 16), 100, nprobe=1)
    assert (found >= 0).all()


def test_excluded_ids_are_left_out_and_replaced(tmp_path):
    options = {"kind": "ivf_pq", "shards": 2}
    ids, vectors, _ = make_store(tmp_path, clustered(300, 16), options=options)
    searcher = lookalike.open(tmp_path)
    plain, _ = searcher.search_vectors(vectors[:8], 6, nprobe=8, rerank=60)
    each, _ = searcher.search_vectors(
        vectors[:8], 5, nprobe=8, rerank=59, exclude=[[i] for i in plain[:, 0]]
    )
    np.testing.assert_array_equal(each, plain[:, 1:])
    everywhere, scores = searcher.search_vectors(vectors[:8], 300, exclude=[int(ids[4]), 12345])
    assert ids[4] not in everywhere
    assert (everywhere[:, :299] >= 0).all()
    assert (everywhere[:, 299:] == -1).all()
    assert np.isneginf(scores[:, 299:]).all()
    ragged, _ = searcher.search_vectors(vectors[:2], 299, exclude=[[int(ids[0])], []])
    assert ids[0] not in ragged[0]
    with pytest.raises(RequestError, match="1 sequences of ids for 2 queries"):
        searcher.search_vectors(vectors[:2], 3, exclude=[[1]])


def test_neighbours_carry_names_metadata_and_duplicates(tmp_path):
    ids, vectors, _ = make_store(tmp_path, clustered(50, 8))
    answers = lookalike.open(tmp_path).search(vectors=vectors[[1, 3]], k=3)
    first = answers[0][0]
    assert (first.query_uri, first.rank, first.uri) == ("vector:0", 1, "/pictures/1.png")
    assert (first.id, first.duplicates) == (ids[1], ("/a", "/b"))
    assert first.metadata == {"label": "group 1"}
    assert first.score == pytest.approx(1)
    assert answers[1][0].duplicates == ("/c",)
    assert [one.rank for one in answers[1]] == [1, 2, 3]
    assert all(left.score >= right.score for left, right in pairwise(answers[1]))
    assert answers[0][1].duplicates == () or answers[0][1].id == ids[3]


def test_scores_that_float32_cannot_tell_apart_are_ranked_exactly(tmp_path):
    """Many rows within a rounding of one another, in whatever order of ids."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal(64)
    vectors = (base + 1e-6 * rng.standard_normal((300, 64))).astype("f4")
    vectors[100:120] = vectors[7]
    for metric in ("cosine", "inner_product", "l2"):
        store = tmp_path / metric
        ids, _, _ = make_store(store, vectors, metric, options={"kind": "exact"})
        queries = rng.standard_normal((8, 64)).astype("f4")
        exact = score(queries, vectors, metric)
        order = np.lexsort((np.broadcast_to(ids, exact.shape), exact if metric == "l2" else -exact))
        found, scores = lookalike.open(store).search_vectors(queries, 12, rerank=300)
        np.testing.assert_array_equal(scores, np.take_along_axis(exact, order[:, :12], 1))
        np.testing.assert_array_equal(found, ids[order[:, :12]])


@pytest.mark.parametrize(
    ("metric", "scale"),
    [("l2", 1e-30), ("l2", 1e8), ("inner_product", 1e-18), ("inner_product", 1e8)],
)
def test_very_short_and_long_vectors_are_ranked_exactly(metric, scale, tmp_path):
    """The squares of the short ones are nothing in float32."""
    ids, vectors, _ = make_store(tmp_path, (scale * clustered(300, 8)).astype("f4"), metric)
    found, _ = lookalike.open(tmp_path).search_vectors(vectors[:5], 5, rerank=300)
    expected = brute_force(vectors[:5], vectors, metric)
    np.testing.assert_array_equal(found, ids[best(expected, 5, metric)])


def test_rows_of_any_length_are_ranked_exactly_by_cosine(tmp_path):
    vectors = clustered(300, 8) * (10.0 ** np.arange(-36, 24).repeat(5))[:, None].astype("f4")
    ids, vectors, _ = make_store(tmp_path, vectors, options={"kind": "exact"})
    found, _ = lookalike.open(tmp_path).search_vectors(clustered(9, 8, 1), 20, rerank=300)
    expected = score(clustered(9, 8, 1), vectors, "cosine")
    np.testing.assert_array_equal(found, ids[best(expected, 20, "cosine")])


def test_threads_share_a_searcher(tmp_path):
    options = {"kind": "ivf_pq", "shards": 3, "nlist": 8}
    _, vectors, _ = make_store(tmp_path, clustered(400, 16), options=options)
    searcher = lookalike.open(tmp_path)
    # Other threads ask with another nprobe: nothing of one call may reach another.
    tasks = [(row, 1 + row % 8) for row in range(200)]

    def ask(task):
        return searcher.search_vectors(vectors[task[0]][None], 5, nprobe=task[1], rerank=20)[0]

    expected = [ask(task) for task in tasks]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, tasks))
    np.testing.assert_array_equal(found, expected)


def test_an_empty_store_answers_with_nothing(tmp_path):
    empty = clustered(1, 8)[:0]
    make_store_of_nothing(tmp_path, empty)
    found, scores = lookalike.open(tmp_path).search_vectors(clustered(2, 8), 3)
    assert found.shape == scores.shape == (2, 0)
    assert lookalike.open(tmp_path).search(vectors=clustered(2, 8), k=3) == [[], []]


def make_store_of_nothing(store, vectors):
    spec = plan(0, 8, "cosine", {})
    data, _ = train(spec, vectors)
    trained = index.TrainedIndex(data, spec)
    folder = f"templates/{trained.sha256}"
    record = write_bytes(store, f"{folder}/{index.TRAINED_FILE}", data)
    lines = [{**record.to_json(), "kind": "template"}]
    write_json(store, f"{folder}/{index.SPEC_FILE}", spec.to_json())
    manifest = {
        "name": "one",
        "metric": "cosine",
        "dim": 8,
        "files": lines,
        "features": [],
        "index": {"template": trained.sha256},
    }
    publishing.publish(open_store(store), manifest)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"queries": np.ones((1, 7)), "k": 3}, r"shape \(1, 7\), the store needs \(n, 8\)"),
        ({"queries": np.ones(9), "k": 3}, r"shape \(9,\), the store needs \(n, 8\)"),
        ({"queries": np.ones((1, 8)), "k": 0}, "k: needs a whole number from 1, got 0"),
        (
            {"queries": np.ones((1, 8)), "k": 1, "nprobe": 0},
            "nprobe: needs a whole number from 1, got 0",
        ),
        ({"queries": np.full((1, 8), np.nan), "k": 1}, "vector 0 has a value that is not finite"),
        ({"queries": np.zeros((1, 8)), "k": 1}, "vector 0 is zero"),
        ({"queries": [["a"] * 8], "k": 1}, "not numbers"),
    ],
)
def test_queries_that_cannot_be_answered_are_refused(call, message, tmp_path):
    make_store(tmp_path, clustered(20, 8))
    with pytest.raises(RequestError, match=message):
        lookalike.open(tmp_path).search_vectors(**call)


def test_images_or_vectors_and_a_store_of_vectors_embeds_no_pictures(tmp_path):
    make_store(tmp_path, clustered(20, 8))
    searcher = lookalike.open(tmp_path)
    with pytest.raises(RequestError, match="images, vectors or like"):
        searcher.search()
    with pytest.raises(RequestError, match="images, vectors or like"):
        searcher.search(["a.png"], vectors=np.ones((1, 8)))
    with pytest.raises(RequestError, match="made elsewhere, without models"):
        searcher.search(["a.png"])


@pytest.mark.parametrize("kind", ["embedding", "index", "template", "duplicates"])
@pytest.mark.parametrize("damage", ["gone", "grown"])
def test_missing_and_resized_files_are_found_on_opening(kind, damage, tmp_path):
    _, _, manifest = make_store(tmp_path, clustered(20, 8))
    path = tmp_path / snapshot.files_of(manifest, kind)[0]["path"]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RequestError, match=f"{path.name}: (missing|size)"):
        lookalike.open(tmp_path)


@pytest.mark.parametrize("kind", ["embedding", "index", "template", "duplicates", "tombstones"])
def test_a_flipped_byte_is_refused_by_name_where_files_are_checked(kind, tmp_path):
    options = {"kind": "ivf_pq", "shards": 2}
    ids, vectors, manifest = make_store(tmp_path, clustered(300, 8), options=options)
    record = write_tombstones(open_store(tmp_path), "snapshots/one/tombstones.npy", ids[:3])
    lines = [*manifest["files"], {**record.to_json(), "kind": "tombstones"}]
    publishing.publish(open_store(tmp_path), {**manifest, "files": lines})
    lookalike.open(tmp_path, check=True).search_vectors(vectors[:2], 3)
    for line in [line for line in lines if line["kind"] == kind]:
        path = tmp_path / line["path"]
        whole = path.read_bytes()
        for position in (0, len(whole) // 2, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(RequestError, match=f"{line['path']}: sha256: expected"):
                lookalike.open(tmp_path, check=True)
        path.write_bytes(whole)
    lookalike.open(tmp_path, check=True)


def test_a_changed_manifest_is_refused_where_files_are_checked(tmp_path):
    make_store(tmp_path, clustered(50, 8))
    path = tmp_path / snapshot.manifest_path("one")
    path.write_text(path.read_text().replace('"nprobe": 4', '"nprobe": 1'))
    assert lookalike.open(tmp_path).default_nprobe == 1
    with pytest.raises(RequestError, match=r"manifest\.json: manifest: expected"):
        lookalike.open(tmp_path, check=True)


def test_opening_reads_no_footers(tmp_path, monkeypatch):
    """A store of ten million vectors has hundreds of files; those read are counted in one."""
    make_store(tmp_path, clustered(400, 8), files=40, options={"kind": "ivf_pq"})
    read = []

    class Counted(pq.ParquetFile):
        def __init__(self, source, *args, **kwargs):
            read.append(source)
            super().__init__(source, *args, **kwargs)

    monkeypatch.setattr(pq, "ParquetFile", Counted)
    monkeypatch.setattr(pq, "read_metadata", lambda *_: read.append("footer"))
    lookalike.open(tmp_path)
    assert read == []


def test_a_shard_of_another_trained_index_is_refused_on_opening(tmp_path):
    _, _, manifest = make_store(tmp_path / "a", clustered(200, 8), options={"kind": "ivf_pq"})
    options = {"kind": "ivf_pq", "seed": 5}
    _, _, other = make_store(tmp_path / "b", clustered(200, 8), options=options)
    line = snapshot.files_of(other, "index")[0]
    (tmp_path / "a" / line["path"]).write_bytes((tmp_path / "b" / line["path"]).read_bytes())
    lines = [one if one["kind"] != "index" else line for one in manifest["files"]]
    publishing.publish(open_store(tmp_path / "a"), {**manifest, "files": lines})
    first, second = manifest["index"]["template"], other["index"]["template"]
    with pytest.raises(
        RequestError, match=f"trained index {second}, the trained index here is {first}"
    ):
        lookalike.open(tmp_path / "a")


def test_searching_vectors_needs_neither_tensorflow_nor_pillow(tmp_path):
    make_store(tmp_path, clustered(20, 8))
    code = (
        "import sys, numpy, lookalike\n"
        f"lookalike.open({str(tmp_path)!r}).search(vectors=numpy.ones((1, 8)), k=2)\n"
        "print([name for name in ('tensorflow', 'PIL', 'apache_beam') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_reader_returns_what_was_written(tmp_path):
    ids, vectors, manifest = make_store(tmp_path, clustered(300, 8))
    files = {line["file_no"]: line["path"] for line in snapshot.files_of(manifest, "embedding")}
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(
        VectorReader(open_store(tmp_path), files).vectors(ids[order]), vectors[order]
    )
