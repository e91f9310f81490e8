from __future__ import annotations

import io
import json
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.distances import METRICS
from lookalike.errors import RequestError
from lookalike.ivf import trained_index as index
from lookalike.ivf.fast_scan import pack_blocks
from lookalike.ivf.invlists import keep_ids, read_shard, select
from lookalike.ivf.planner import plan
from lookalike.ivf.selections import Selection
from lookalike.ivf.shard_files import capacities, list_offsets, read_header, write_shard
from lookalike.ivf.train import train
from lookalike.ivf.trained_index import TrainedIndex
from lookalike.store.index_header import ShardHeader
from tests.index_shards import encode_shard
from tests.vector_stores import clustered, trained

GOLDEN = Path(__file__).parent / "golden"
CODECS = [
    ("exact", {}),
    ("ivf_sq", {}),
    ("ivf_pq", {"nbits": 4}),
    ("ivf_pq", {"nbits": 8}),
]


@pytest.fixture(autouse=True)
def _one_thread():
    index.set_threads(1)


def codec_index(kind, options, metric="cosine", n=500, d=24):
    vectors = clustered(n, d)
    if metric == "jaccard":
        vectors = np.abs(vectors)
    spec = plan(n, d, metric, {"kind": kind, **options})
    return TrainedIndex(train(spec, vectors)[0], spec), vectors


def small_index(*arguments, **options):
    data, spec, vectors = trained(*arguments, **options)
    return TrainedIndex(data, spec), vectors


def write(path, trained, *blocks):
    with open(path, "wb") as file:
        return encode_shard(trained, blocks, file.write)


def range_shard(path, trained, ids, vectors, first, last):
    """The lists [first, last) alone, by the writer that grouping uses."""
    prepared = trained.prepare(vectors)
    lists = trained.assign(prepared)
    codes = trained.encode(prepared, lists)
    order = np.lexsort((ids, lists))
    order = order[(lists[order] >= first) & (lists[order] < last)]
    sizes = np.bincount(lists[order] - first, minlength=last - first)
    header = ShardHeader(
        trained.sha256,
        trained.layout,
        len(order),
        first,
        last,
        trained.spec.nlist,
        trained.code_size,
        int(ids[order].min(initial=-1)),
        int(ids[order].max(initial=-1)),
    )
    with open(path, "wb") as file:
        write_shard(header, sizes, [(codes[order], ids[order])], file.write)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("kind", "options"), CODECS)
def test_a_mapped_shard_answers_as_a_faiss_index_in_memory(kind, options, metric, tmp_path):
    trained, vectors = codec_index(kind, options, metric)
    ids = np.random.default_rng(0).permutation(500) + (3 << 32)
    header = write(tmp_path / "s", trained, (ids[:7], vectors[:7]), (ids[7:], vectors[7:]))
    assert (header.rows, header.min_id, header.max_id) == (500, 3 << 32, (3 << 32) + 499)
    assert read_header(tmp_path / "s") == header
    # The same codes in lists that Faiss itself keeps in memory, and packs itself.
    prepared = trained.prepare(vectors)
    lists = trained.assign(prepared)
    codes = trained.encode(prepared, lists)
    memory = faiss.ArrayInvertedLists(trained.spec.nlist, trained.code_size)
    order = np.lexsort((ids, lists))
    for row in order.tolist():
        one, code = ids[row : row + 1], np.ascontiguousarray(codes[row])
        memory.add_entries(int(lists[row]), 1, faiss.swig_ptr(one), faiss.swig_ptr(code))
    plain = trained.scanner()
    if trained.layout == "blocks32":
        own = trained._ivf
        shape = (own.quantizer, own.d, own.nlist, own.pq.M, own.pq.nbits, own.metric_type)
        ivf = faiss.IndexIVFPQ(*shape)
        ivf.pq, ivf.by_residual, ivf.is_trained = own.pq, True, True
        memory.this.disown()
        ivf.replace_invlists(memory, True)  # not owned, the conversion below would crash
        ivf.ntotal = 500
        plain = faiss.IndexIVFPQFastScan(ivf)
    else:
        plain.replace_invlists(memory, False)
    queries = trained.prepare(vectors[:20])
    distances, probed = trained.coarse(queries, min(3, trained.spec.nlist))
    expected = np.empty((20, 10), np.float32)
    expected_ids = np.empty((20, 10), np.int64)
    pointers = [faiss.swig_ptr(one) for one in (queries, probed, distances, expected, expected_ids)]
    plain.search_preassigned_c(
        20,
        pointers[0],
        10,
        *pointers[1:],
        False,
        faiss.SearchParametersIVF(nprobe=probed.shape[1]),
    )
    found_ids, found = read_shard(tmp_path / "s", trained).search(queries, 10, distances, probed)
    np.testing.assert_array_equal(found_ids, expected_ids)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("m", [2, 6, 16, 32])
def test_blocks_are_packed_as_faiss_packs_them(m):
    vectors = clustered(700, 2 * m)
    quantizer = faiss.IndexFlatIP(2 * m)
    plain = faiss.IndexIVFPQ(quantizer, 2 * m, 5, m, 4, faiss.METRIC_INNER_PRODUCT)
    plain.cp.min_points_per_centroid = plain.pq.cp.min_points_per_centroid = 1
    plain.train(vectors)
    plain.add(vectors)
    converted = faiss.IndexIVFPQFastScan(plain)
    fast = faiss.downcast_InvertedLists(converted.invlists)
    compared = 0
    for number in range(5):
        size = plain.invlists.list_size(number)
        places = -(-size // 32) * 32
        codes = np.zeros((places, m // 2), np.uint8)
        codes[:size] = faiss.rev_swig_ptr(plain.invlists.get_codes(number), size * m // 2).reshape(
            size, -1
        )
        expected = faiss.rev_swig_ptr(fast.get_codes(number), places * m // 2)
        np.testing.assert_array_equal(pack_blocks(codes).ravel(), expected)
        compared += size
    assert compared == 700


def unpack(blocks):
    """The inverse of `pack_blocks`, byte by byte."""
    codes = np.zeros((len(blocks) * 32, blocks.shape[1]), np.uint8)
    for (block, column, place), value in np.ndenumerate(blocks):
        half, place = divmod(place, 16)  # lower or upper sub-quantizer of a byte
        low = place // 2 + 8 * (place % 2)
        codes[32 * block + low, column] |= (value & 15) << 4 * half
        codes[32 * block + low + 16, column] |= (value >> 4) << 4 * half
    return codes


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(1, 5))
def test_packing_loses_nothing(seed, blocks, size):
    codes = np.random.default_rng(seed).integers(0, 256, (32 * blocks, size)).astype(np.uint8)
    np.testing.assert_array_equal(unpack(pack_blocks(codes)), codes)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 70), min_size=1, max_size=9),
    st.integers(1, 40),
    st.sampled_from(["plain", "blocks32"]),
)
def test_lists_are_aligned_and_lie_apart(sizes, code_size, layout):
    header = ShardHeader("t", layout, sum(sizes), 0, len(sizes), len(sizes), code_size, -1, -1)
    written = io.BytesIO()
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (sum(sizes), code_size)).astype(np.uint8)
    ids = rng.permutation(sum(sizes)).astype(np.int64)
    write_shard(header, sizes, [(codes, ids)], written.write)
    offsets = list_offsets(header, sizes)
    places = capacities(sizes, layout, code_size)
    assert len(written.getvalue()) == offsets[-1]
    assert (offsets % 64 == 0).all()
    assert (places >= sizes).all()
    assert (places * code_size % 8 == 0).all()
    data = np.frombuffer(written.getvalue(), np.uint8)
    begin = 0
    for offset, place, size in zip(offsets, places, sizes, strict=False):
        stored = data[offset : offset + place * code_size]
        if layout == "blocks32":
            stored = unpack(stored.reshape(-1, code_size, 32)).ravel()
        np.testing.assert_array_equal(
            stored[: size * code_size], codes[begin : begin + size].ravel()
        )
        at = offset + place * code_size
        np.testing.assert_array_equal(
            data[at : at + 8 * size].view("<i8"), ids[begin : begin + size]
        )
        begin += size


@pytest.mark.parametrize("nbits", [4, 8])
def test_range_shards_together_answer_as_one_shard_does(nbits, tmp_path):
    trained, vectors = small_index(nlist=8, nbits=nbits)
    ids = np.arange(400)
    write(tmp_path / "whole", trained, (ids, vectors))
    queries = trained.prepare(vectors[:30])
    distances, lists = trained.coarse(queries, 5)
    expected, scores = read_shard(tmp_path / "whole", trained).search(queries, 50, distances, lists)
    merged_ids, merged = np.empty((30, 0), np.int64), np.empty((30, 0), np.float32)
    for number, (first, last) in enumerate([(0, 3), (3, 3), (3, 4), (4, 8)]):
        range_shard(tmp_path / str(number), trained, ids, vectors, first, last)
        shard = read_shard(tmp_path / str(number), trained)
        found, found_scores = shard.search(queries, 50, distances, lists)
        merged_ids = np.concatenate([merged_ids, found], axis=1)
        merged = np.concatenate([merged, found_scores], axis=1)
    for row in range(30):
        there = merged_ids[row] >= 0
        own = set(merged_ids[row, there].tolist())
        assert set(expected[row, expected[row] >= 0].tolist()) <= own
        # 50 of up to 400 are returned: those are the best of all, and scores agree.
        best = np.sort(merged[row, there])[::-1][: (expected[row] >= 0).sum()]
        np.testing.assert_array_equal(best, np.sort(scores[row, expected[row] >= 0])[::-1])


def test_a_shard_without_any_probed_list_finds_nothing(tmp_path):
    trained, vectors = small_index(nlist=8)
    range_shard(tmp_path / "s", trained, np.arange(400), vectors, 2, 3)
    shard = read_shard(tmp_path / "s", trained)
    queries = trained.prepare(vectors[:4])
    lists = np.array([[0, 1], [3, 7], [-1, -1], [5, 4]])
    ids, scores = shard.search(queries, 3, np.zeros((4, 2), np.float32), lists)
    assert (ids == -1).all()
    assert np.isneginf(scores).all()


def test_lists_of_minus_one_are_skipped(tmp_path):
    trained, vectors = small_index(nlist=8)
    write(tmp_path / "s", trained, (np.arange(400), vectors))
    shard = read_shard(tmp_path / "s", trained)
    queries = trained.prepare(vectors[:10])
    distances, lists = trained.coarse(queries, 4)
    few, _ = shard.search(queries, 400, distances[:, :2], lists[:, :2])
    lists[:, 2:] = -1
    found, _ = shard.search(queries, 400, distances, lists)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(few, axis=1))


@pytest.mark.parametrize(("kind", "options"), CODECS)
def test_selectors_keep_and_drop_ids(kind, options, tmp_path):
    trained, vectors = codec_index(kind, options)
    ids = np.arange(500) + (7 << 32)
    write(tmp_path / "s", trained, (ids, vectors))
    shard = read_shard(tmp_path / "s", trained)
    queries = trained.prepare(vectors[:8])
    coarse = trained.coarse(queries, trained.spec.nlist)
    wanted = ids[::9]
    kept, _ = shard.search(queries, 500, *coarse, keep_ids(wanted))
    for row in kept:
        np.testing.assert_array_equal(np.sort(row[row >= 0]), wanted)
    left, _ = shard.search(queries, 500, *coarse, select(Selection(wanted, inverted=True)))
    for row in left:
        np.testing.assert_array_equal(np.sort(row[row >= 0]), np.setdiff1d(ids, wanted))


def test_nprobe_is_an_argument_and_not_state(tmp_path):
    trained, vectors = small_index(nlist=8)
    write(tmp_path / "s", trained, (np.arange(400), vectors))
    shard = read_shard(tmp_path / "s", trained)
    prepared = trained.prepare(vectors[:5])
    counts = [
        (shard.search(prepared, 400, *trained.coarse(prepared, nprobe))[0] >= 0).sum()
        for nprobe in (1, 4, 8, 1)
    ]
    assert counts[0] == counts[3] < counts[1] < counts[2] == 5 * 400


@pytest.mark.parametrize(("kind", "options"), CODECS)
def test_an_empty_shard_is_a_shard(kind, options, tmp_path):
    trained, vectors = codec_index(kind, options)
    header = write(tmp_path / "s", trained)
    assert (header.rows, header.min_id, header.max_id) == (0, -1, -1)
    prepared = trained.prepare(vectors[:2])
    shard = read_shard(tmp_path / "s", trained)
    assert (shard.search(prepared, 3, *trained.coarse(prepared, 1))[0] == -1).all()


def test_one_list_and_empty_lists(tmp_path):
    trained, vectors = small_index(nlist=1)
    write(tmp_path / "one", trained, (np.arange(400), vectors))
    trained, vectors = small_index(nlist=8)
    write(tmp_path / "few", trained, ([5, 2], vectors[:2]))
    shard = read_shard(tmp_path / "few", trained)
    assert (shard.file.sizes == 0).sum() >= 6
    prepared = trained.prepare(vectors[:2])
    found = shard.search(prepared, 4, *trained.coarse(prepared, 8))[0]
    assert np.sort(found, axis=1).tolist() == [[-1, -1, 2, 5]] * 2


def test_entries_of_a_list_are_sorted_by_id(tmp_path):
    trained, vectors = small_index(nlist=8)
    write(tmp_path / "s", trained, (np.random.default_rng(1).permutation(400), vectors))
    seen = [*read_shard(tmp_path / "s", trained).file.ids()]
    assert all((np.diff(ids) > 0).all() for ids in seen)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(400))


def test_a_shard_of_another_trained_index_is_refused_naming_both(tmp_path):
    first, vectors = small_index()
    second, _ = small_index(seed=9)
    assert first.sha256 != second.sha256
    write(tmp_path / "s", first, (np.arange(400), vectors))
    with pytest.raises(
        RequestError, match=f"{first.sha256}, the trained index here is {second.sha256}"
    ):
        read_shard(tmp_path / "s", second)


def changed(data, **values):
    header = {**json.loads(data[:4096]), **values}
    return json.dumps(header).encode().ljust(4096) + data[4096:]


DAMAGES = {
    "truncated": lambda data: data[:-50],
    "extended": lambda data: data + b"\0" * 64,
    "header": lambda data: b"\0" * 4096 + data[4096:],
    "magic": lambda data: changed(data, format="something else"),
    "first version": lambda data: changed(data, version=1),
    "fewer rows": lambda data: changed(data, rows=399),
    "other lists": lambda data: changed(data, last_list=7),
    "lists beyond the template": lambda data: changed(data, nlist=9, last_list=9),
    "a range turned round": lambda data: changed(data, first_list=8, last_list=2),
    "longer codes": lambda data: changed(data, code_size=99),
    "layout of a part": lambda data: changed(data, layout="columns"),
    "the other layout": lambda data: changed(data, layout="plain"),
    "an unknown layout": lambda data: changed(data, layout="rows"),
    "a number that is none": lambda data: changed(data, rows="400"),
    "rows below none": lambda data: changed(data, rows=-1),
    "sizes": lambda data: data[:4096] + b"\xff\xff\xff\xff" + data[4100:],
    "nothing after the header": lambda data: data[:4096],
    "within the header": lambda data: data[:100],
    "nothing": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_refused_and_named(damage, tmp_path):
    trained, vectors = small_index(nlist=8)
    path = tmp_path / "s.lists"
    write(path, trained, (np.arange(400), vectors))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(RequestError, match=r"s\.lists: .*(damaged|not an index shard|layout)"):
        read_shard(path, trained)


def test_a_missing_shard_is_named(tmp_path):
    trained, _ = small_index()
    with pytest.raises(RequestError, match="gone: the index shard cannot be read"):
        read_shard(tmp_path / "gone", trained)


def test_many_shards_may_be_open_and_go_away(tmp_path):
    trained, vectors = small_index(nlist=8)
    write(tmp_path / "s", trained, (np.arange(400), vectors))
    prepared = trained.prepare(vectors[:3])
    coarse = trained.coarse(prepared, 8)
    shards = [read_shard(tmp_path / "s", trained) for _ in range(30)]
    answers = {shard.search(prepared, 5, *coarse)[0].tobytes() for shard in shards}
    del shards[::2]
    answers |= {shard.search(prepared, 5, *coarse)[0].tobytes() for shard in shards}
    assert len(answers) == 1


def test_a_shard_holds_on_to_what_it_needs_of_its_trained_index(tmp_path):
    trained, vectors = small_index(nlist=8)
    write(tmp_path / "s", trained, (np.arange(400), vectors))
    prepared = trained.prepare(vectors[:3])
    coarse = trained.coarse(prepared, 8)
    shard = read_shard(tmp_path / "s", trained)
    expected = shard.search(prepared, 5, *coarse)[0]
    del trained
    np.testing.assert_array_equal(shard.search(prepared, 5, *coarse)[0], expected)


def test_a_shard_of_the_first_version_is_refused_with_the_remedy():
    path = GOLDEN / "index_v1.lists"
    with pytest.raises(RequestError, match=r"version 2: .*version 1, .*index again"):
        read_header(path)


@pytest.mark.parametrize("name", ["exact", "ivf_pq_4bit"])
def test_shards_of_version_two_are_read_for_ever(name):
    folder = GOLDEN / f"index_v2_{name}"
    golden = json.loads((folder / "answers.json").read_text())
    trained = index.load_trained_index(folder, golden["template"])
    shard = read_shard(folder / "shard.lists", trained)
    assert (shard.header.rows, shard.header.min_id, shard.header.max_id) == (
        80,
        7 << 32,
        (7 << 32) + 79,
    )
    prepared = trained.prepare(np.array(golden["queries"], np.float32))
    ids, scores = shard.search(prepared, 3, *trained.coarse(prepared, trained.spec.nlist))
    np.testing.assert_array_equal(ids, golden["ids"])
    np.testing.assert_allclose(scores, golden["scores"], atol=1e-5)


@pytest.mark.parametrize("name", ["exact", "ivf_pq_4bit"])
def test_the_same_codes_are_written_as_the_same_bytes_for_ever(name):
    """The writer, from the golden file's own entries: the format cannot move unnoticed."""
    folder = GOLDEN / f"index_v2_{name}"
    golden = json.loads((folder / "answers.json").read_text())
    trained = index.load_trained_index(folder, golden["template"])
    file = read_shard(folder / "shard.lists", trained).file
    codes = np.array(golden["codes"], np.uint8)
    written = io.BytesIO()
    write_shard(file.header, file.sizes, [(codes, np.concatenate([*file.ids()]))], written.write)
    assert written.getvalue() == (folder / "shard.lists").read_bytes()
