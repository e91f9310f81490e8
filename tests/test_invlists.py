from __future__ import annotations

import io
import json
from pathlib import Path

import faiss
import numpy as np
import pytest

from lookalike.errors import RequestError
from lookalike.index import template as index
from lookalike.index.invlists import encode_shard, read_header, read_shard
from lookalike.index.metrics import METRICS, candidate_vectors
from lookalike.index.planning import plan
from lookalike.index.template import Template, template_hash, train
from tests.vector_stores import clustered, trained

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _one_thread():
    index.set_threads(1)


def small_index(*arguments, **options):
    data, spec, vectors = trained(*arguments, **options)
    return Template(data, spec), vectors


def write_shard(path, template, *blocks):
    with open(path, "wb") as file:
        return encode_shard(template, blocks, file.write)


@pytest.mark.parametrize(("n", "d"), [(64, 3), (64, 1), (64, 700), (100, 16), (250, 65)])
def test_tiny_stores_can_be_forced(n, d, tmp_path):
    template, vectors = small_index(n, d)
    write_shard(tmp_path / "s", template, (np.arange(n), vectors))
    shard = read_shard(tmp_path / "s", template)
    prepared = template.prepare(vectors)
    found = shard.search(prepared, n, *template.coarse(prepared, template.spec.nlist))[0]
    assert (np.sort(found, axis=1) == np.arange(n)).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["exact", "ivf_pq"])
def test_shards_answer_as_one_faiss_index_does(metric, kind, tmp_path):
    vectors = clustered(500, 24)
    if metric == "jaccard":
        vectors = np.abs(vectors)
    spec = plan(500, 24, metric, {"kind": kind})
    data, _ = train(spec, vectors)
    template = Template(data, spec)
    ids = np.arange(500) + (3 << 32)
    header = write_shard(tmp_path / "s", template, (ids[:7], vectors[:7]), (ids[7:], vectors[7:]))
    assert (header.rows, header.min_id, header.max_id) == (500, 3 << 32, (3 << 32) + 499)
    assert read_header(tmp_path / "s") == header
    whole = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    whole.add_with_ids(candidate_vectors(vectors, metric), ids)
    faiss.extract_index_ivf(whole).nprobe = 3
    expected, expected_ids = whole.search(candidate_vectors(vectors[:20], metric), 10)
    shard = read_shard(tmp_path / "s", template)
    prepared = template.prepare(vectors[:20])
    nprobe = min(3, spec.nlist)
    found_ids, found = shard.search(prepared, 10, *template.coarse(prepared, nprobe))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (found_ids == expected_ids).mean() > 0.98  # near ties may swap in the last bit


def test_shards_share_the_template_and_nprobe_is_an_argument(tmp_path):
    template, vectors = small_index(nlist=8)
    write_shard(tmp_path / "s", template, (np.arange(400), vectors))
    shard = read_shard(tmp_path / "s", template)
    prepared = template.prepare(vectors[:5])
    counts = [
        (shard.search(prepared, 400, *template.coarse(prepared, nprobe))[0] >= 0).sum()
        for nprobe in (1, 4, 8, 1)
    ]
    assert counts[0] == counts[3] < counts[1] < counts[2] == 5 * 400


def test_encoding_is_bit_equal_for_one_and_two_threads():
    template, vectors = small_index()
    written = set()
    for threads in (1, 2):
        index.set_threads(threads)
        file = io.BytesIO()
        encode_shard(template, [(np.arange(400), vectors)], file.write)
        written.add(file.getvalue())
    assert len(written) == 1


def test_an_empty_shard_is_a_shard(tmp_path):
    template, vectors = small_index()
    header = write_shard(tmp_path / "s", template)
    assert (header.rows, header.min_id, header.max_id) == (0, -1, -1)
    prepared = template.prepare(vectors[:2])
    shard = read_shard(tmp_path / "s", template)
    assert (shard.search(prepared, 3, *template.coarse(prepared, 2))[0] == -1).all()


def test_faiss_counts_vectors_it_drops_and_encoding_refuses_them(tmp_path):
    template, vectors = small_index()
    prepared = template.prepare(vectors)
    prepared[5, 3] = prepared[9, 0] = np.nan
    trap = template.empty()
    trap.add_with_ids(prepared, np.arange(400))
    assert (trap.ntotal, trap.invlists.compute_ntotal()) == (400, 398)
    bad = vectors.copy()
    bad[5, 3], bad[9, 0] = np.nan, np.inf
    with pytest.raises(RequestError, match="vector 5 has a value that is not finite"):
        write_shard(tmp_path / "s", template, (np.arange(400), bad))
    zero = vectors.copy()
    zero[7] = 0
    with pytest.raises(RequestError, match="vector 7 is zero"):
        write_shard(tmp_path / "s", template, (np.arange(400), zero))


def test_an_id_must_not_come_twice(tmp_path):
    template, vectors = small_index()
    with pytest.raises(RequestError, match="id 3 comes more than once"):
        write_shard(tmp_path / "s", template, ([1, 3], vectors[:2]), ([3], vectors[2:3]))


@pytest.mark.parametrize("good_calls", [0, 1, 5])
def test_a_full_disk_is_an_error(good_calls):
    template, vectors = small_index()
    calls = []

    def write(data):
        if len(calls) == good_calls:
            raise OSError(28, "no space left on device")
        calls.append(data)

    with pytest.raises(OSError, match="no space left"):
        encode_shard(template, [(np.arange(400), vectors)], write)


def test_a_shard_of_another_template_is_refused_naming_both(tmp_path):
    first, vectors = small_index()
    second, _ = small_index(seed=9)
    assert first.sha256 != second.sha256
    write_shard(tmp_path / "s", first, (np.arange(400), vectors))
    with pytest.raises(RequestError, match=f"{first.sha256}, the template here is {second.sha256}"):
        read_shard(tmp_path / "s", second)


def test_faiss_merges_other_codebooks_silently_so_the_hash_must_tell():
    # Why templates are compared by hash: Faiss compares the coarse centroids alone.
    data, spec, vectors = trained(nlist=1)
    second = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    ivf = faiss.downcast_index(faiss.extract_index_ivf(second))
    changed = -faiss.vector_to_array(ivf.pq.centroids)
    faiss.copy_array_to_vector(changed, ivf.pq.centroids)
    second.add_with_ids(vectors, np.arange(400) + 400)
    into = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    faiss.extract_index_ivf(into).merge_from(faiss.extract_index_ivf(second), 0)  # no complaint
    second.reset()
    other = Template(faiss.serialize_index(second).tobytes(), spec)
    assert other.sha256 != template_hash(data)


@pytest.mark.parametrize("damage", ["truncated", "header", "magic", "rows", "other lists", "short"])
def test_a_damaged_shard_is_refused(damage, tmp_path):
    template, vectors = small_index()
    path = tmp_path / "s"
    write_shard(path, template, (np.arange(400), vectors))
    data = path.read_bytes()
    header, lists = data[:4096], data[4096:]
    path.write_bytes(
        {
            "truncated": data[:-50],
            "header": b"\0" * 4096 + lists,
            "magic": header.replace(b"lookalike-index", b"something-else!") + lists,
            "rows": header.replace(b'"rows": 400', b'"rows": 399') + lists,
            "other lists": header + b"ilod" + lists[4:],
            "short": data[:100],
        }[damage]
    )
    with pytest.raises(RequestError, match=r"damaged|not an index shard"):
        read_shard(path, template)


def test_a_missing_shard_is_named(tmp_path):
    template, _ = small_index()
    with pytest.raises(RequestError, match="gone: the index shard cannot be read"):
        read_shard(tmp_path / "gone", template)


def test_shards_are_mapped_not_read(tmp_path):
    template, vectors = small_index()
    write_shard(tmp_path / "s", template, (np.arange(400), vectors))
    shard = read_shard(tmp_path / "s", template)
    assert isinstance(faiss.downcast_InvertedLists(shard._ivf.invlists), faiss.OnDiskInvertedLists)


@pytest.mark.parametrize("kind", ["exact", "ivf_pq"])
def test_template_and_shard_of_the_first_version_are_read_for_ever(kind):
    folder = GOLDEN / f"index_v1_{kind}"
    golden = json.loads((folder / "answers.json").read_text())
    template = index.load_template(folder, golden["template"])
    shard = read_shard(folder / "shard.lists", template)
    assert (shard.header.rows, shard.header.min_id, shard.header.max_id) == (
        80,
        7 << 32,
        (7 << 32) + 79,
    )
    prepared = template.prepare(np.array(golden["queries"], np.float32))
    ids, scores = shard.search(prepared, 3, *template.coarse(prepared, template.spec.nlist))
    np.testing.assert_array_equal(ids, golden["ids"])
    np.testing.assert_allclose(scores, golden["scores"], atol=1e-5)
