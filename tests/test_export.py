"""What is exported, opened by the software that it is meant for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest

import lookalike
from lookalike.exact_neighbours import ExactNeighbours, recall_at_k
from lookalike.ivf.shard_files import pack_blocks, unpack_blocks
from lookalike.pipelines.cli import main
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from lookalike.store.tombstones import write_tombstones
from tests import publishing
from tests.vector_stores import build_index, clustered, make_store

ROWS, DIM, QUERIES, K, NPROBE = 6000, 32, 300, 10, 6
VECTORS = clustered(ROWS + QUERIES, DIM, seed=3)
ASKED = VECTORS[ROWS:]


def made(folder: Path, metric: str, options: dict[str, Any], forget: bool = True) -> np.ndarray:
    """A store, of which every seventh row and one whole shard are deleted; ids of the living."""
    extra = {"search": {"nprobe": NPROBE, "rerank": 100}}
    ids, _, manifest = make_store(
        folder, VECTORS[:ROWS], metric, files=5, options=options, extra=extra
    )
    if not forget:
        return ids
    gone = np.concatenate([ids[::7], ids[(ids >> 32) == 6]])
    record = write_tombstones(open_store(folder), "snapshots/one/tombstones.npy", gone)
    line = {**record.to_json(), "kind": "tombstones"}
    publishing.publish(open_store(folder), {**manifest, "files": [*manifest["files"], line]})
    return np.setdiff1d(ids, gone)


def exported(store: Path, kind: str, out: Path) -> Path:
    assert main(["export", "--store", str(store), "--format", kind, str(out)]) == 0
    return out


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize(
    "options",
    [
        {"kind": "ivf_pq", "nlist": 48, "nbits": 4, "shards": 3},
        {"kind": "ivf_pq", "nlist": 48, "nbits": 8, "code_bytes": 8},
        {"kind": "ivf_sq", "nlist": 48},
    ],
    ids=["pq4", "pq8", "sq8"],
)
def test_faiss_finds_the_same_candidates(
    metric: str, options: dict[str, Any], tmp_path: Path
) -> None:
    living = made(tmp_path / "store", metric, options)
    index = faiss.read_index(str(exported(tmp_path / "store", "faiss", tmp_path / "a.faiss")))
    assert (index.ntotal, index.d) == (len(living), DIM)
    ivf = faiss.extract_index_ivf(index)
    assert ivf.nprobe == NPROBE
    lists = ivf.invlists
    held = [
        faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)).copy() for i in range(lists.nlist)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.sort(living))

    searcher = lookalike.open(tmp_path / "store")
    order = {row: i for i, row in enumerate(living.tolist())}
    truth = ExactNeighbours(ASKED, np.full(QUERIES, -1), K, metric)
    truth.update(
        living,
        searcher.rows(living, ["embedding"])["embedding"]
        .combine_chunks()
        .flatten()
        .to_numpy()
        .reshape(-1, DIM),
    )

    def recall(ids: np.ndarray) -> float:
        assert all(row in order for row in ids.ravel().tolist())
        scores = searcher.index.exact_scores(ASKED, ids)
        return float(recall_at_k(ids, scores, truth.ids, truth.scores, K, metric).mean())

    ours, _ = searcher.index.candidates(ASKED, NPROBE, K)
    _, theirs = index.search(ASKED, K)
    assert recall(theirs) >= recall(ours) - 0.005
    if options["kind"] == "ivf_pq":  # scalar codes go by distance there, which keeps more of them
        assert recall(theirs) <= recall(ours) + 0.005
    same = np.mean([len(set(a) & set(b)) / K for a, b in zip(ours, theirs, strict=True)])
    assert same > 0.95


@pytest.mark.parametrize("kind", ["exact", "ivf_pq"])
def test_lists_that_lie_in_several_files_are_put_together(kind: str, tmp_path: Path) -> None:
    """As nights leave them, each of which adds a shard for the rows that are new."""
    store = tmp_path / "store"
    options = {"kind": kind, **({"nlist": 16} if kind == "ivf_pq" else {})}
    ids, _, manifest = make_store(store, VECTORS[:900], files=5, options=options)
    opened = lookalike.open(store)
    whole = faiss.read_index(str(exported(store, "faiss", tmp_path / "whole.faiss")))
    paths = [line["path"] for line in snapshot.files_of(manifest, "embedding")]
    lines = [line for line in manifest["files"] if line["kind"] != "index"]
    for part in (paths[:1], paths[1:3], paths[3:]):
        shutil.rmtree(store / "runs")  # where it says that this is done
        lines += build_index(store, part, opened.index.trained)
    publishing.publish(open_store(store), {**manifest, "files": lines})
    assert len(lookalike.open(store).index.files) == 3
    parts = faiss.read_index(str(exported(store, "faiss", tmp_path / "parts.faiss")))
    assert parts.ntotal == len(ids)
    for one, other in zip(parts.search(ASKED, K), whole.search(ASKED, K), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_an_exact_store_becomes_a_flat_index(metric: str, tmp_path: Path) -> None:
    living = made(tmp_path / "store", metric, {"kind": "exact"})
    index = faiss.read_index(str(exported(tmp_path / "store", "faiss", tmp_path / "a.faiss")))
    scores, ids = index.search(ASKED, K)
    searcher = lookalike.open(tmp_path / "store")
    expected, exact = searcher.search_vectors(ASKED, K)
    np.testing.assert_array_equal(ids, expected)
    scores = np.sqrt(scores) if metric == "l2" else scores
    np.testing.assert_allclose(scores, exact, rtol=1e-4, atol=1e-5)
    assert index.ntotal == len(living)


def test_a_store_of_nothing_but_deleted_rows(tmp_path: Path) -> None:
    ids = made(tmp_path / "store", "cosine", {"kind": "exact"}, forget=False)
    manifest = snapshot.read_manifest(open_store(tmp_path / "store"))
    record = write_tombstones(open_store(tmp_path / "store"), "snapshots/one/tombs.npy", ids)
    line = {**record.to_json(), "kind": "tombstones"}
    files = [*manifest["files"], line]
    publishing.publish(open_store(tmp_path / "store"), {**manifest, "files": files})
    index = faiss.read_index(str(exported(tmp_path / "store", "faiss", tmp_path / "a.faiss")))
    assert index.ntotal == 0
    folder = exported(tmp_path / "store", "npy", tmp_path / "arrays")
    assert len(np.load(folder / "vectors.npy")) == 0
    assert (
        pq.read_table(exported(tmp_path / "store", "parquet", tmp_path / "a.parquet")).num_rows == 0
    )


def test_arrays_and_names_are_in_the_same_order(tmp_path: Path) -> None:
    living = made(tmp_path / "store", "l2", {"kind": "exact"})
    folder = exported(tmp_path / "store", "npy", tmp_path / "arrays")
    assert sorted(path.name for path in folder.iterdir()) == ["uris.parquet", "vectors.npy"]
    vectors, names = (
        np.load(folder / "vectors.npy", mmap_mode="r"),
        pq.read_table(folder / "uris.parquet"),
    )
    np.testing.assert_array_equal(names["id"].to_numpy(), living)
    rows = [int(Path(uri).stem) for uri in names["uri"].to_pylist()]
    np.testing.assert_array_equal(vectors, VECTORS[rows])


def test_one_table_of_the_living_rows(tmp_path: Path) -> None:
    living = made(tmp_path / "store", "cosine", {"kind": "exact"})
    out = exported(tmp_path / "store", "parquet", tmp_path / "a.parquet")
    table = pq.read_table(out)
    assert table.column_names == ["id", "uri", "label", "embedding"]
    np.testing.assert_array_equal(table["id"].to_numpy(), living)
    rows = [int(Path(uri).stem) for uri in table["uri"].to_pylist()]
    assert table["label"].to_pylist() == [f"group {row % 3}" for row in rows]
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(-1, DIM), VECTORS[rows])


def test_an_index_of_other_rows_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, manifest = make_store(tmp_path / "store", VECTORS[:50])
    twice = [*manifest["files"], *snapshot.files_of(manifest, "index")]
    publishing.publish(open_store(tmp_path / "store"), {**manifest, "files": twice})
    out = tmp_path / "a.faiss"
    arguments = ["export", "--store", str(tmp_path / "store"), "--format", "faiss", str(out)]
    assert main(arguments) == 2
    assert "the index holds 100 living rows, the snapshot 50" in capsys.readouterr().err
    assert not out.exists()


def test_blocks_are_unpacked_to_what_was_packed() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (96, 7), dtype=np.uint8)
    np.testing.assert_array_equal(unpack_blocks(pack_blocks(codes)), codes)


@pytest.mark.parametrize(
    ("metric", "kind", "out", "message"),
    [
        ("cosine", "faiss", "there.faiss", "is there already; name another, or remove it"),
        ("cosine", "npy", "no/such", "no such folder"),
        ("cosine", "parquet", "table.txt", "must end in .parquet"),
        ("jaccard", "faiss", "a.faiss", "Faiss searches by no such metric as jaccard"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    metric: str,
    kind: str,
    out: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_store(tmp_path / "store", VECTORS[:50], metric)
    (tmp_path / "there.faiss").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    arguments = [
        "export",
        "--store",
        str(tmp_path / "store"),
        "--format",
        kind,
        str(tmp_path / out),
    ]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "there.faiss").read_text() == "mine"


def test_the_result_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path / "store", VECTORS[:50])
    out = tmp_path / "a.faiss"
    arguments = [
        "export",
        "--store",
        str(tmp_path / "store"),
        "--format",
        "faiss",
        str(out),
        "--json",
    ]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == {
        "format": "faiss",
        "path": str(out),
        "snapshot": "one",
        "metric": "cosine",
        "dim": DIM,
        "rows": 50,
        "nprobe": 1,
    }
