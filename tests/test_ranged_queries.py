"""A query to object storage fetches what it needs of the stored vectors, not their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lookalike
from lookalike.store.bucket import BucketStore
from lookalike.store.cached import CACHE
from lookalike.store.objects import open_store
from lookalike.store.vector_reader import VectorReader
from tests.s3_server import Faults, faulty_proxy, store_uri
from tests.vector_stores import clustered, make_store

pytest.importorskip("obstore")

ROWS, DIM = 6000, 512


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    found: np.ndarray = clustered(ROWS, DIM)
    return found


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray, s3: int
) -> tuple[Path, list[int]]:
    """A store of four files, which lies under "four" on the server, too; and its ids."""
    path = tmp_path_factory.mktemp("store")
    ids, _, _ = make_store(path, vectors, options={"kind": "ivf_pq", "nlist": 32})
    upload(path, store_uri(s3, "four"))
    return path, ids.tolist()


@pytest.fixture
def proxy(s3: int) -> Iterator[tuple[int, Faults]]:
    with faulty_proxy(s3) as found:
        yield found


def upload(folder: Path, uri: str) -> None:
    source, store = open_store(folder), BucketStore(uri)
    for path in source.files(""):
        store.upload(folder / path, source.record(path))


def found(searcher: lookalike.Searcher, **asked: Any) -> list[list[tuple[Any, ...]]]:
    rows = searcher.search(**asked)
    return [[(n.id, n.score, n.uri, n.duplicates, n.metadata) for n in row] for row in rows]


def test_a_query_fetches_under_a_tenth_of_the_vectors(
    folder: tuple[Path, list[int]],
    vectors: np.ndarray,
    proxy: tuple[int, Faults],
    tmp_path: Path,
) -> None:
    (local, ids), (port, faults) = folder, proxy
    near, far = lookalike.open(local), lookalike.open(store_uri(port, "four"), cache=tmp_path)
    assert "embeddings" not in " ".join(one for one in faults.seen if one.startswith("GET"))
    tenth = vectors.nbytes // 10
    for asked in ({}, {"exclude": ids[:3]}, {"where": "label = 'group 1'"}):
        faults.plan()
        asked |= {"vectors": vectors[:1], "k": 5, "rerank": 20}
        answers = found(far, **asked)
        if "where" not in asked:  # of a third of the rows, more are compared
            assert 0 < faults.sent < tenth
        assert answers == found(near, **asked)
    far = lookalike.open(store_uri(port, "four"), cache=tmp_path)
    faults.plan()
    columns = ["uri", "embedding", "label"]
    rows = far.rows(ids[::2000], columns)
    assert 0 < faults.sent < tenth
    assert rows.equals(near.rows(ids[::2000], columns))
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".parquet")]


def test_rows_of_many_files_are_asked_for_at_once_and_each_once(
    folder: tuple[Path, list[int]], proxy: tuple[int, Faults]
) -> None:
    (local, ids), (port, faults) = folder, proxy
    files = {int(one["file_no"]): one["path"] for one in lines(local, "embedding")}
    wanted = np.array([ids[row] for row in (5999, 0, 3000, 0, 1, 2999, 4500)], dtype=np.int64)
    near = VectorReader(open_store(local), files)
    far = VectorReader(open_store(store_uri(port, "four")), files)
    assert np.array_equal(far.vectors(wanted), near.vectors(wanted))
    # Of each file its size and footer, known to neither, and its vectors: those of 0 and 1 lie
    # together, and so do no others.
    assert sorted(set(faults.seen)) == sorted(
        f"{m} /bucket/four/{p}" for m in ("GET", "HEAD") for p in files.values()
    )
    assert sum(one.startswith("GET") for one in faults.seen) <= 4 + 6
    assert far.described(wanted) == near.described(wanted)
    assert far.metadata_schema() == near.metadata_schema()
    faults.plan()
    far.described(wanted)
    assert not faults.seen


def test_what_is_asked_of_a_file_again_and_again_is_its_bytes_twice_at_most(
    folder: tuple[Path, list[int]],
    vectors: np.ndarray,
    proxy: tuple[int, Faults],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (local, ids), (port, faults) = folder, proxy
    monkeypatch.setenv(CACHE, str(tmp_path))
    files = {int(one["file_no"]): one["path"] for one in lines(local, "embedding")}
    far = VectorReader(open_store(store_uri(port, "four")), files)
    rng = np.random.default_rng(0)
    for _ in range(40):
        rows = rng.choice(ROWS, 500)
        assert np.array_equal(far.vectors(np.array(ids)[rows]), vectors[rows])
    assert faults.sent < 2.1 * sum((local / path).stat().st_size for path in files.values())
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 1000


def test_opening_looks_at_many_files_by_one_listing(
    s3: int, proxy: tuple[int, Faults], tmp_path: Path
) -> None:
    local, (port, faults) = tmp_path / "local", proxy
    _, _, manifest = make_store(local, clustered(60, 8), files=20)
    upload(local, store_uri(s3, "many"))
    uri = store_uri(port, "many")
    searcher = lookalike.open(uri, cache=tmp_path / "cache")
    assert not [one for one in faults.seen if "/embeddings/" in one]
    assert sum("prefix=many%2Fembeddings" in one for one in faults.seen) == 1
    assert searcher.count == 60
    [path, *_] = [one["path"] for one in manifest["files"] if one["kind"] == "embedding"]
    BucketStore(uri).delete([path])
    with pytest.raises(lookalike.RequestError, match=f"{path}: missing"):
        lookalike.open(uri, cache=tmp_path / "cache")


def lines(store: Path, kind: str) -> list[dict[str, Any]]:
    manifest = lookalike.open(store).manifest
    return [line for line in manifest["files"] if line["kind"] == kind]
