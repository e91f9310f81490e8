"""A query by itself waits for no thread but the one that asks, however many the libraries have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

import lookalike
from lookalike.parallel import cores
from lookalike.store.duplicates import write_duplicates
from lookalike.store.durable import read_json, write_json
from lookalike.store.objects import open_store
from tests.vector_stores import clustered, make_store, pairs

others_told = pytest.mark.skipif(
    cores() < 2 or not Path("/proc/self/task").exists(),
    reason="threads are as many as cores, and their times are told by /proc",
)
NOTHING = 1_000_000  # ns for all queries: a thread on its way to sleep; one that is woken uses more
# Nanoseconds of processor time of every other thread while queries are asked, each of which was
# asked before: so what is read and decoded once, is.
CODE = """
import json, os, sys, time, numpy, lookalike
def used():
    found = {}
    for name in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{name}/schedstat") as file:
            found[name] = int(file.read().split()[0])
    return found
def ask():
    for row in queries:
        for options in asked:
            searcher.search(vectors=row[None], **options)
searcher = lookalike.open(sys.argv[1])
queries, asked = numpy.load(sys.argv[2]), json.loads(sys.argv[3])
many = numpy.ones((512, 512), "f4")
many @ many  # so that BLAS has the threads it was told to have
ask()
time.sleep(0.5)  # BLAS's threads spin for a while before they sleep
before = used()
ask()
after = used()
own = str(os.getpid())
others = {name: used - before.get(name, 0) for name, used in after.items() if name != own}
print(json.dumps({"threads": len(after), "others": sum(others.values())}))
"""


def others(store: Path, queries: np.ndarray, asked: list[dict[str, object]]) -> int:
    np.save(store / "queries.npy", queries)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(store), str(store / "queries.npy"), json.dumps(asked)],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "4", "OMP_NUM_THREADS": "4"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["threads"] >= 2  # there are some to wake
    return int(found["others"])


def least(store: Path, queries: np.ndarray, asked: list[dict[str, object]]) -> int:
    """Of three processes: a thread that tidies up something else is at work now and then."""
    tries = (others(store, queries, asked) for _ in range(3))
    return next((one for one in tries if one < NOTHING), NOTHING)


@pytest.mark.slow
@others_told
@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
def test_a_query_uses_no_other_thread(metric: str, tmp_path: Path) -> None:
    # Products of a row with 2,048 centroids of 128 components, with 512 stored vectors of 512.
    options = {"kind": "ivf_pq", "nlist": 2048, "rotation_dim": 128}
    vectors = clustered(4096, 512, rank=200)
    ids, vectors, _ = make_store(tmp_path, vectors, metric, options=options)
    asked: list[dict[str, object]] = [
        {"k": 10},
        {"k": 10, "nprobe": 256, "rerank": 300},
        {"k": 3, "where": "label = 'group 1'"},
        {"k": 5, "exclude": ids[:3].tolist()},
    ]
    assert least(tmp_path, vectors[:20], asked) < NOTHING


@others_told
def test_neither_does_one_of_an_exact_index_whose_answers_have_other_names(tmp_path: Path) -> None:
    ids, vectors, _ = make_store(tmp_path, clustered(3000, 256), options={"kind": "exact"})
    names = {i: [f"/other/{i}/{n}" for n in range(3)] for i in ids}
    record, rows = write_duplicates(
        open_store(tmp_path), "snapshots/one/all.parquet", pairs(names.items())
    )
    path = next((tmp_path / "snapshots").glob("*/manifest.json"))
    found = read_json(path)
    found["files"] = [line for line in found["files"] if line["kind"] != "duplicates"]
    found["files"].append({**record.to_json(), "kind": "duplicates", "rows": rows})
    write_json(tmp_path, str(path.relative_to(tmp_path)), found)
    answer = lookalike.open(tmp_path).search(vectors=vectors[:1], k=4)[0]
    assert [one.duplicates for one in answer] == [tuple(names[one.id]) for one in answer]
    assert least(tmp_path, vectors[:20], [{"k": 10}, {"k": 40}]) < NOTHING


def test_searching_leaves_the_threads_that_a_caller_has_set_in_faiss(tmp_path: Path) -> None:
    _, vectors, _ = make_store(tmp_path, clustered(300, 16))
    searcher = lookalike.open(tmp_path)
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        for rows in (vectors[:1], vectors[:9]):
            searcher.search(vectors=rows, k=2)
            assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
def test_one_by_one_queries_get_the_answers_that_they_get_together(
    metric: str, tmp_path: Path
) -> None:
    options = {"kind": "ivf_pq", "nlist": 64, "shards": 3}
    _, vectors, _ = make_store(tmp_path, clustered(900, 48), metric, options=options)
    searcher = lookalike.open(tmp_path)
    together = searcher.search(vectors=vectors[:60], k=8, nprobe=8, rerank=60)
    for row, expected in enumerate(together):
        (found,) = searcher.search(vectors=vectors[row][None], k=8, nprobe=8, rerank=60)
        assert [(one.id, one.score, one.uri, one.metadata) for one in found] == [
            (one.id, one.score, one.uri, one.metadata) for one in expected
        ]
