"""Traps in Faiss: each is shown in the installed version, then that this code does not fall in."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
from faiss.contrib import client_server, ondisk

from lookalike.distances import top_k
from lookalike.errors import RequestError
from lookalike.ivf import trained_index as index
from lookalike.ivf.invlists import keep_ids, read_shard, select
from lookalike.ivf.selections import Selection
from lookalike.ivf.trained_index import TrainedIndex
from lookalike.search.searcher import Searcher
from lookalike.store import snapshot
from lookalike.store.durable import write_file
from lookalike.store.objects import open_store
from tests.index_shards import encode_shard
from tests.vector_stores import clustered, make_store, trained

PACKAGE = Path(index.__file__).parent.parent


@pytest.fixture(autouse=True)
def _one_thread():
    index.set_threads(1)


def small_index(**options):
    data, spec, vectors = trained(**options)
    return TrainedIndex(data, spec), vectors


def write(path, trained, ids, vectors):
    with open(path, "wb") as file:
        return encode_shard(trained, [(ids, vectors)], file.write)


def faiss_index(vectors, nlist=4, nbits=8):
    quantizer = faiss.IndexFlatIP(vectors.shape[1])
    ivf = faiss.IndexIVFPQ(quantizer, vectors.shape[1], nlist, 4, nbits, faiss.METRIC_INNER_PRODUCT)
    ivf.cp.min_points_per_centroid = ivf.pq.cp.min_points_per_centroid = 1
    ivf.train(vectors)
    return ivf


def stored_ids(lists):
    return np.concatenate(
        [
            faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
            for number in range(lists.nlist)
            if lists.list_size(number)
        ]
    )


def test_merging_on_disk_with_shifted_ids_gives_duplicate_ids_so_ids_are_given_once(tmp_path):
    vectors = clustered(1800, 16)
    ivf = faiss_index(vectors)
    paths = []
    for start, end in ((0, 1000), (1000, 1300), (1300, 1800)):
        part = faiss.clone_index(ivf)
        part.add(vectors[start:end])
        paths.append(str(tmp_path / f"{start}.index"))
        faiss.write_index(part, paths[-1])
    ondisk.merge_ondisk(ivf, paths, str(tmp_path / "merged"), shift_ids=True)
    merged = stored_ids(faiss.downcast_InvertedLists(ivf.invlists))
    assert len(merged) == 1800
    assert len(np.unique(merged)) < 1800  # the trap
    # Ours: files of unequal length, several parts, grouped by list.
    ids, _, manifest = make_store(
        tmp_path / "store",
        clustered(130, 16)[np.r_[0:100, 0:30]],
        files=3,
        options={"kind": "ivf_pq", "nlist": 4, "shards": 2},
    )
    searcher = Searcher(open_store(tmp_path / "store"), manifest)
    found = [np.concatenate([*shard.file.ids()]) for shard in searcher.index._shards]
    assert len(found) == 2
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), ids)


def test_other_codebooks_merge_silently_so_trained_indexes_are_compared_by_hash(tmp_path):
    vectors = clustered(400, 16)
    one = faiss_index(vectors)
    two = faiss.clone_index(one)
    faiss.copy_array_to_vector(-faiss.vector_to_array(one.pq.centroids), two.pq.centroids)
    two.add(vectors)
    one.merge_from(two, 0)  # the trap: no complaint
    assert one.ntotal == 400
    first, rows = small_index()
    second, _ = small_index(seed=9)
    write(tmp_path / "s", first, np.arange(400), rows)
    with pytest.raises(
        RequestError, match=f"{first.sha256}, the trained index here is {second.sha256}"
    ):
        read_shard(tmp_path / "s", second)


def test_merging_refined_indexes_loses_vectors_so_reranking_is_outside_of_faiss(tmp_path):
    vectors = clustered(900, 16)
    trained_once = faiss_index(vectors)
    parts = []
    for rows in (vectors[:500], vectors[500:]):
        base = faiss.clone_index(trained_once)
        parts.append(faiss.IndexRefineFlat(base))
        parts[-1].add(rows)
    faiss.merge_into(parts[0], parts[1], False)
    assert parts[0].base_index.ntotal == 900
    assert parts[0].refine_index.ntotal == 500  # the trap
    with pytest.raises(RequestError, match="not a lookalike trained index"):
        TrainedIndex(faiss.serialize_index(parts[0]).tobytes(), small_index()[0].spec)
    ids, stored, _ = make_store(
        tmp_path, clustered(300, 16), options={"kind": "ivf_pq", "nlist": 4, "shards": 2}
    )
    found, scores = Searcher.open(tmp_path).search_vectors(stored[::7], 1, nprobe=4)
    np.testing.assert_array_equal(found[:, 0], ids[::7])
    np.testing.assert_allclose(scores, 1, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_dropped_but_counted_so_they_are_refused(value, tmp_path):
    vectors = clustered(400, 24)
    bad = vectors.copy()
    bad[5, 3] = bad[9, 0] = value
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatL2(24), 24, 4)
    ivf.train(vectors)
    ivf.add(bad)
    assert (ivf.ntotal, ivf.invlists.compute_ntotal()) == (400, 398)  # the trap
    trained, _ = small_index()
    with pytest.raises(RequestError, match="vector 5 has a value that is not finite"):
        write(tmp_path / "s", trained, np.arange(400), bad)


def test_zero_vectors_are_refused_under_cosine(tmp_path):
    trained, vectors = small_index()
    vectors[7] = 0
    with pytest.raises(RequestError, match="vector 7 is zero"):
        write(tmp_path / "s", trained, np.arange(400), vectors)


def test_fastscan_lists_are_read_whole_whatever_is_asked_so_ours_are_mapped(tmp_path):
    vectors = clustered(400, 16)
    plain = faiss_index(vectors, nbits=4)
    plain.add(vectors)
    kinds = []
    for number, one in enumerate((plain, faiss.IndexIVFPQFastScan(plain))):
        path = str(tmp_path / f"{number}.index")
        faiss.write_index(one, path)
        read = faiss.read_index(path, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        kinds.append(type(faiss.downcast_InvertedLists(read.invlists)))
    assert kinds[0] is faiss.OnDiskInvertedLists
    assert kinds[1] is not faiss.OnDiskInvertedLists  # the trap
    trained, rows = small_index(nbits=4)
    assert isinstance(trained.scanner(), faiss.IndexIVFPQFastScan)
    write(tmp_path / "s", trained, np.arange(400), rows)
    shard = read_shard(tmp_path / "s", trained)
    mapped = faiss.downcast_InvertedLists(shard._ivf.invlists)
    assert isinstance(mapped, faiss.OnDiskInvertedLists)
    assert mapped.read_only


def test_a_flipped_byte_loads_silently_so_files_have_checksums(tmp_path):
    vectors = clustered(400, 16)
    ivf = faiss_index(vectors, nlist=1)
    ivf.add(vectors)
    data = bytearray(faiss.serialize_index(ivf).tobytes())
    code = faiss.rev_swig_ptr(ivf.invlists.get_codes(0), 1600).tobytes()
    data[bytes(data).index(code)] ^= 1
    loaded = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    changed = faiss.rev_swig_ptr(loaded.invlists.get_codes(0), 1600).tobytes()
    assert changed != code  # the trap: no complaint
    _, _, manifest = make_store(tmp_path, clustered(300, 16), options={"kind": "ivf_pq"})
    line = snapshot.files_of(manifest, "index")[0]
    path = tmp_path / line["path"]
    shard = read_shard(path, Searcher.open(tmp_path).index.trained)
    stored = bytearray(path.read_bytes())
    stored[int(shard.file.offsets[np.argmax(shard.file.sizes)])] ^= 1  # within a code
    del shard
    path.write_bytes(stored)
    assert not [*snapshot.check_sizes(open_store(tmp_path), [line])]
    (problem,) = [*snapshot.check_file(open_store(tmp_path), line)]
    assert (problem.path, problem.problem) == (line["path"], "sha256")
    Searcher.open(tmp_path)  # sizes alone say nothing
    with pytest.raises(RequestError, match=f"{line['path']}: sha256"):
        Searcher.open(tmp_path, check=True)
    # A trained index is loaded into memory, so its bytes are always hashed first.
    trained = next(tmp_path.glob("templates/*/template.faiss"))
    damaged = bytearray(trained.read_bytes())
    damaged[-1] ^= 1
    trained.write_bytes(damaged)
    with pytest.raises(RequestError, match=r"template\.faiss: the trained index has sha256"):
        Searcher.open(tmp_path)


def test_searching_faiss_shards_ignores_the_selector_and_ours_does_not(tmp_path):
    vectors = clustered(400, 24)
    whole = faiss_index(vectors)
    shards = faiss.IndexShardsIVF(whole.quantizer, whole.nlist, False, False)
    kept = []
    for rows in (slice(0, 200), slice(200, 400)):
        part = faiss.clone_index(whole)
        part.add_with_ids(vectors[rows], np.arange(400)[rows])
        part.nprobe = 4
        kept.append(part)
        shards.add_shard(part)
    chosen = faiss.IDSelectorRange(0, 50)
    _, found = shards.search(
        vectors[300:310], 5, params=faiss.SearchParametersIVF(sel=chosen, nprobe=4)
    )
    assert found.max() >= 50  # the trap
    trained, rows = small_index(nlist=4)
    half = [slice(0, 200), slice(200, 400)]
    for number, part in enumerate(half):
        write(tmp_path / str(number), trained, np.arange(400)[part], rows[part])
    prepared = trained.prepare(rows[300:310])
    coarse = trained.coarse(prepared, 4)
    for number in range(2):
        shard = read_shard(tmp_path / str(number), trained)
        found, _ = shard.search(prepared, 400, *coarse, keep_ids(np.arange(50)))
        assert set(found.ravel().tolist()) <= {-1, *range(50)}
        assert (found >= 0).any() == (number == 0)
        others = select(Selection(np.arange(50), inverted=True))
        found, _ = shard.search(prepared, 400, *coarse, others)
        assert not set(found.ravel().tolist()) & {*range(50)}


def test_faiss_servers_merge_by_smallest_whatever_the_metric_and_ours_do_not():
    source = Path(client_server.__file__).read_text()
    assert "ResultHeap(" in source or "ResultHeap" in source
    heap = faiss.ResultHeap(1, 2)  # as it is called there: the smallest are kept
    heap.add_result(np.array([[0.9, 0.1]], np.float32), np.array([[1, 2]]))
    heap.add_result(np.array([[0.8, 0.2]], np.float32), np.array([[3, 4]]))
    heap.finalize()
    assert heap.I.tolist() == [[2, 4]]  # the trap, for inner products
    scores, ids = np.array([[0.9, 0.1, 0.8, 0.2]], np.float32), np.array([[1, 2, 3, 4]])
    assert top_k(ids, scores, 2, "cosine")[0].tolist() == [[1, 3]]
    assert top_k(ids, scores, 2, "inner_product")[0].tolist() == [[1, 3]]
    assert top_k(ids, scores, 2, "l2")[0].tolist() == [[2, 4]]


def test_nothing_of_faiss_that_merges_reads_lists_or_comes_from_its_demos_is_used():
    """merge_to_ondisk.py calls what no longer exists, and it is not in the wheel to be shown."""
    forbidden = {
        "merge_ondisk",
        "merge_from",
        "merge_into",
        "merge_from_multiple",
        "add_with_ids",
        "IndexRefineFlat",
        "IndexRefine",
        "IndexShardsIVF",
        "IndexShards",
        "IndexIDMap",
        "IndexIDMap2",
        "read_InvertedLists",
        "write_InvertedLists",
        "read_index",
        "write_index",
        "train_ivf_index_with_2level",
        "add_sa_codes",
        "search_and_reconstruct",
    }
    looked_at = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        found = names & forbidden
        if path.name == "exporting.py":  # which writes for Faiss alone to read
            found -= {"IndexIDMap"}
        assert not found, f"{path} uses {found}"
        assert not any(module and module.startswith("faiss.contrib") for module in modules), path
        looked_at += "faiss" in path.read_text(encoding="utf-8")
    assert looked_at >= 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_faiss_only_prints_that_the_disk_is_full_and_ours_says_so(tmp_path):
    script = (
        "import faiss\n"
        "index = faiss.IndexFlatL2(4)\n"
        "faiss.write_index(index, '/dev/full')\n"
        "print('written')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.stdout == "written\n"  # the trap: a small file fits its buffer until it is closed
    assert ended.returncode == 0
    trained, vectors = small_index()
    with (
        pytest.raises(OSError, match="No space left"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        encode_shard(trained, [(np.arange(400), vectors)], full.write)


@pytest.mark.parametrize("good_calls", [0, 1, 2])
def test_an_error_of_the_callers_writer_comes_out_unchanged(good_calls, tmp_path):
    trained, vectors = small_index()
    calls = []
    failure = OSError(28, "no space left on device")

    def fail(data):
        if len(calls) == good_calls:
            raise failure
        calls.append(data)

    with pytest.raises(OSError, match="no space left") as raised, write_file(tmp_path, "s") as file:
        encode_shard(trained, [(np.arange(400), vectors)], lambda data: (fail(data), file.write))
    assert raised.value is failure
    assert not [*tmp_path.iterdir()]  # neither the file nor a part of it
