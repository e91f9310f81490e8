"""Filters and tombstones: whatever keeps rows out of answers, against exact search of the rest."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import lookalike
from lookalike.distances import METRICS
from lookalike.errors import RequestError
from lookalike.ivf.selections import Selection, difference
from lookalike.pipelines.cli import main
from lookalike.search import answering
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from lookalike.store.tombstones import write_tombstones
from tests import publishing
from tests.vector_stores import best, brute_force, clustered, make_store

ROWS = 4000
GROUPS = 40


@pytest.fixture(scope="module")
def vectors():
    """Rows in order of their group, so that a filter on the row keeps whole groups."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((GROUPS, 12))
    low = np.repeat(centres, ROWS // GROUPS, axis=0) + 0.4 * rng.standard_normal((ROWS, 12))
    return (low @ rng.standard_normal((12, 32)) + 0.1 * rng.standard_normal((ROWS, 32))).astype(
        "f4"
    )


@pytest.fixture(scope="module")
def store(vectors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    options = {"kind": "ivf_pq", "nlist": 64}
    ids, _, manifest = make_store(folder, vectors, options=options)
    return folder, ids, manifest


@pytest.fixture(params=["one by one", "by the index"])
def _way(request, monkeypatch):
    """Both ways of answering, whatever the number of rows would make of it."""
    if request.param == "by the index":
        monkeypatch.setattr(answering, "_few", lambda *_: False)


def recall(found, ids, scores, mask, metric="cosine", k=10):
    """Share of the exact k nearest of the rows in `mask`, over all queries."""
    rows = np.flatnonzero(mask)
    true = ids[rows[best(scores[:, rows], k, metric)]]
    return np.mean([np.isin(t, f).sum() for t, f in zip(true, found, strict=True)]) / k


# The store's labels are "group 0" to "group 2", by row modulo 3; uris end in the row's number.
NUMBER = np.arange(ROWS)
FILTERS = {
    "every hundredth": ("uri like '%37.png'", NUMBER % 100 == 37),
    "every tenth": ("uri like '%3.png'", NUMBER % 10 == 3),
    "half": (
        "uri like '%0.png' or uri like '%2.png' or uri like '%4.png' or uri like '%6.png' "
        "or uri like '%8.png'",
        NUMBER % 2 == 0,
    ),
    "nearly all": ("not uri like '%37.png'", NUMBER % 100 != 37),
    "whole groups": ("uri like '/pictures/1___.png'", (NUMBER >= 1000) & (NUMBER < 2000)),
    "a label": ("label = 'group 1' and width = 4", NUMBER % 3 == 1),
}


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("name", FILTERS)
def test_filtered_answers_are_those_of_exact_search_among_what_matches(name, store, vectors):
    folder, ids, _ = store
    where, mask = FILTERS[name]
    queries = vectors[::80]  # half the groups, most of them outside the "whole groups"
    found, scores = lookalike.open(folder).search_vectors(queries, 10, where=where, nprobe=8)
    assert found.shape == (len(queries), 10)
    assert np.isin(found, ids[mask]).all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert recall(found, ids, brute_force(queries, vectors, "cosine"), mask) >= 0.95


@pytest.mark.usefixtures("_way")
def test_rows_that_match_are_all_found_where_there_are_few(store, vectors):
    folder, ids, _ = store
    searcher = lookalike.open(folder)
    where = "uri in ('/pictures/5.png', '/pictures/1700.png', '/pictures/3999.png')"
    for k in (2, 3, 50):
        found, scores = searcher.search_vectors(vectors[:4], k, where=where, nprobe=1)
        assert found.shape == scores.shape == (4, min(k, 3))
        assert np.isin(found, ids[[5, 1700, 3999]]).all()
    assert searcher.search(vectors=vectors[5:6], where=where)[0][0].uri == "/pictures/5.png"
    without, _ = searcher.search_vectors(vectors[:4], 3, where=where, exclude=[int(ids[1700])])
    assert np.isin(without[:, :2], ids[[5, 3999]]).all()
    assert (without[:, 2] == -1).all()


def test_no_row_that_matches_gives_no_neighbours(store, vectors):
    searcher = lookalike.open(store[0])
    found, scores = searcher.search_vectors(vectors[:3], 5, where="width > 1000")
    assert found.shape == scores.shape == (3, 0)
    assert searcher.search(vectors=vectors[:2], where="label is null") == [[], []]


def test_a_wrong_filter_is_refused(store, vectors):
    searcher = lookalike.open(store[0])
    for where, message in (
        ("colour = 'red'", "there is no column colour; the columns are bytes, format, height, id"),
        ("width = 'red'", "column width"),
        ("width >", "at character 8"),
    ):
        with pytest.raises(RequestError, match=message):
            searcher.search_vectors(vectors[:1], 5, where=where)


def test_the_command_filters_and_checks(store, vectors, tmp_path, capsys):
    folder, _, manifest = store
    np.save(tmp_path / "queries.npy", vectors[:2])
    asked = ["query", "--store", str(folder), "--vectors", str(tmp_path / "queries.npy"), "--json"]
    assert main([*asked, "--check", "--where", "label = 'group 2'", "-k", "3"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in rows] == ["group 2"] * 6
    assert main([*asked, "--where", "label = 2"]) == 2
    assert "column label (string) cannot be compared with the number 2" in capsys.readouterr().err
    path = folder / snapshot.files_of(manifest, "index")[0]["path"]
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        assert main([*asked, "--check"]) == 2
        assert f"{path.name}: sha256" in capsys.readouterr().err
    finally:
        path.write_bytes(whole)


def test_few_rows_are_compared_and_many_are_scanned():
    def few(rows, queries, scanned, depth=100):
        return answering._few(answering.Request(10, 1, depth, rows, 10**8), queries, scanned)

    assert few(10_000, 1, 1)
    assert not few(10_001, 1, 100_000)
    assert few(50_000, 1000, 5_000_000)
    assert not few(50_000_000, 1000, 5_000_000)


# --- tombstones -------------------------------------------------------------------------------


def forget(store, manifest, ids):
    """The snapshot again, with these ids forgotten."""
    record = write_tombstones(open_store(store), "snapshots/one/tombstones.npy", ids)
    lines = [line for line in manifest["files"] if line["kind"] != "tombstones"]
    lines.append({**record.to_json(), "kind": "tombstones"})
    publishing.publish(open_store(store), {**manifest, "files": lines})


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["exact", "ivf_pq"])
def test_forgotten_rows_are_in_no_answer(metric, kind, tmp_path):
    ids, vectors, manifest = make_store(
        tmp_path, clustered(400, 16), metric, options={"kind": kind}
    )
    deleted = np.zeros(400, dtype=bool)
    deleted[::3] = True
    # Ids of other snapshots' rows are nobody's here.
    forget(tmp_path, manifest, [*ids[deleted].tolist(), 3, (5 << 32) + 70_000, 99 << 32])
    searcher = lookalike.open(tmp_path)
    assert searcher.count == 266
    scores = brute_force(vectors[:20], vectors, metric)
    expected = ids[np.flatnonzero(~deleted)[best(scores[:, ~deleted], 10, metric)]]
    found, _ = searcher.search_vectors(vectors[:20], 10, nprobe=16, rerank=266)
    np.testing.assert_array_equal(found, expected)
    everything, finite = searcher.search_vectors(vectors[:3], 10**6)
    np.testing.assert_array_equal(np.sort(everything, axis=1), [ids[~deleted]] * 3)
    assert np.isfinite(finite).all()
    some, _ = searcher.search_vectors(vectors[:3], 300, where="label = 'group 1' or uri is null")
    np.testing.assert_array_equal(
        np.sort(some, axis=1), [ids[~deleted & (np.arange(400) % 3 == 1)]] * 3
    )
    candidates, _ = searcher.index.candidates(vectors[:5], searcher.spec.nlist, 400)
    assert not np.isin(candidates, ids[deleted]).any()
    names = {one.uri for answers in searcher.search(vectors=vectors[:9]) for one in answers}
    assert not names & {f"/pictures/{row}.png" for row in np.flatnonzero(deleted)}


def test_answers_stay_full_where_most_are_forgotten(store, vectors, tmp_path):
    """Whole groups are gone, and queries are in them."""
    options = {"kind": "ivf_pq", "nlist": 64}
    ids, _, manifest = make_store(tmp_path, vectors, options=options)
    living = NUMBER >= 3600
    forget(tmp_path, manifest, ids[~living])
    searcher = lookalike.open(tmp_path)
    assert searcher.count == 400
    found, _ = searcher.search_vectors(vectors[::80], 10, nprobe=2)
    assert (found >= 0).all()
    assert recall(found, ids, brute_force(vectors[::80], vectors, "cosine"), living) >= 0.95


def test_everything_may_be_forgotten(tmp_path):
    ids, vectors, manifest = make_store(tmp_path, clustered(50, 8))
    forget(tmp_path, manifest, ids)
    searcher = lookalike.open(tmp_path)
    assert searcher.count == 0
    assert searcher.search(vectors=vectors[:2]) == [[], []]


def test_a_damaged_file_of_tombstones_is_named(tmp_path):
    ids, _, manifest = make_store(tmp_path, clustered(50, 8))
    forget(tmp_path, manifest, ids[:3])
    path = tmp_path / "snapshots/one/tombstones.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-8] + bytes(8))
    with pytest.raises(RequestError, match=r"tombstones\.npy: not tombstones"):
        lookalike.open(tmp_path)
    path.unlink()
    with pytest.raises(RequestError, match=r"tombstones\.npy: missing"):
        lookalike.open(tmp_path)


# --- selections -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "has_bits"),
    [([0], True), ([1, 2, 700], True), ([3, 2**30], False)],  # 2^59 bytes: no system has them
)
def test_selections_know_their_ids(files, has_bits):
    rng = np.random.default_rng(0)
    ids = np.concatenate([(file << 32) + np.unique(rng.integers(0, 5000, 900)) for file in files])
    selection = Selection(ids)
    assert (selection.bits is not None) == has_bits
    for file in files if has_bits else []:
        found = np.unpackbits(selection.bits[file << 29 : (file << 29) + 700], bitorder="little")
        np.testing.assert_array_equal((file << 32) + np.flatnonzero(found), ids[ids >> 32 == file])
    assert not Selection(ids[:0]).bits.any()


def test_both_kinds_of_selector_give_the_same_candidates(store, vectors):
    folder, ids, _ = store
    searcher = lookalike.open(folder)
    for inverted in (False, True):
        by_bits, by_set = Selection(ids[::7], inverted), Selection(ids[::7], inverted)
        by_set.__dict__["bits"] = None  # as where the system has no such memory
        found, again = (
            searcher.index.candidates(vectors[:30], 64, 50, selection)[0]
            for selection in (by_bits, by_set)
        )
        np.testing.assert_array_equal(found, again)
        assert (np.isin(found, ids[::7]) != inverted).all()


def test_difference_of_sorted_ids():
    rng = np.random.default_rng(1)
    left, right = np.unique(rng.integers(0, 500, 300)), np.unique(rng.integers(0, 600, 200))
    np.testing.assert_array_equal(difference(left, right), np.setdiff1d(left, right))
    np.testing.assert_array_equal(difference(left, right[:0]), left)
    assert difference(left[:0], right).shape == (0,)


def test_threads_filter_at_once(store, vectors):
    searcher = lookalike.open(store[0])
    tasks = [(row, name) for row in range(0, 400, 10) for name in FILTERS]

    def ask(task):
        row, name = task
        return searcher.search_vectors(vectors[row][None], 5, where=FILTERS[name][0])[0]

    expected = [ask(task) for task in tasks]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, tasks))
    np.testing.assert_array_equal(found, expected)
