from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.exact_neighbours import ExactNeighbours
from lookalike.ivf import encoding
from lookalike.ivf import trained_index as index
from lookalike.ivf.encoding import EncodeTask, encode
from lookalike.ivf.invlists import read_shard
from lookalike.ivf.part_files import open_part
from lookalike.ivf.trained_index import TrainedIndex
from lookalike.store import shard_format, shards
from lookalike.store.durable import read_json
from lookalike.store.objects import open_store
from tests.file_records import file_record
from tests.index_shards import encode_shard
from tests.vector_stores import best, brute_force, trained


def write_embeddings(store, vectors, cuts):
    """Embedding shards of consecutive rows; returns their paths and all ids."""
    schema = shard_format.schema(vectors.shape[1], pa.schema([]), {})
    paths, ids = [], []
    for number, rows in enumerate(np.split(np.arange(len(vectors)), cuts), start=5):
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
                ids.append(writer.append(fields, vectors[row]))
    return paths, np.array(ids)


def task(paths, **values):
    return EncodeTask(0, tuple(paths), "runs/part", "runs/truth", "runs/done.json", **values)


def no_queries(spec):
    return ExactNeighbours(np.empty((0, spec.dim)), [], 1, spec.metric)


@pytest.fixture(scope="module")
def trained_index():
    data, spec, vectors = trained(400, 24, nlist=8, nbits=4)
    return TrainedIndex(data, spec), vectors


def entries(part, trained_index):
    """{id: (list, code)} of a part, with the order checked."""
    start, sizes = part.sizes(0, trained_index.spec.nlist)
    rows = int(sizes.sum())
    lists, (codes, ids) = (
        np.repeat(np.arange(trained_index.spec.nlist), sizes),
        part.entries(start, rows),
    )
    np.testing.assert_array_equal(np.lexsort((ids, lists)), np.arange(rows))
    np.testing.assert_array_equal(part.ids(start, rows), ids)
    return {
        i: (n, code.tobytes())
        for i, n, code in zip(ids.tolist(), lists.tolist(), codes, strict=True)
    }


def output(store, name="shard"):
    """The path of what the task made: its part or shard, or its truth."""
    return store / read_json(store / "runs/done.json")[name]["path"]


def open_as(store, trained_index):
    spec = trained_index.spec
    path = str(output(store).relative_to(store))
    return open_part(
        open_store(store), path, trained_index.sha256, trained_index.code_size, spec.nlist
    )


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product", "jaccard"])
def test_one_pass_gives_codes_truth_and_fitness(metric, tmp_path):
    data, spec, vectors = trained(400, 24, metric, nlist=8, nbits=4)
    trained_index = TrainedIndex(data, spec)
    paths, ids = write_embeddings(tmp_path, vectors, [3, 150, 150, 390])
    truth = ExactNeighbours(vectors[:20], ids[:20], 5, metric)
    encode(task(paths), open_store(tmp_path), trained_index, truth)
    done = read_json(tmp_path / "runs/done.json")
    assert done["shard"]["rows"] == done["header"]["rows"] == 400
    assert done["removed"] == 0
    for name in ("shard", "truth"):
        found = file_record(tmp_path, done[name]["path"]).to_json()
        assert found.items() <= done[name].items()
    prepared = trained_index.prepare(vectors)
    lists = trained_index.assign(prepared)
    codes = trained_index.encode(prepared, lists)
    expected = {
        i: (n, code.tobytes())
        for i, n, code in zip(ids.tolist(), lists.tolist(), codes, strict=True)
    }
    assert entries(open_as(tmp_path, trained_index), trained_index) == expected
    found = ExactNeighbours.from_bytes(output(tmp_path, "truth").read_bytes())
    scores = brute_force(vectors[:20], vectors, metric)
    scores[np.arange(20), np.arange(20)] = np.inf if metric == "l2" else -np.inf
    np.testing.assert_array_equal(found.ids, ids[best(scores, 5, metric)])
    fitness = done["fitness"]
    decoded = trained_index.decode(codes, lists)
    kept, whole = prepared.astype("f8"), vectors.astype("f8")
    if metric == "cosine":
        whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    if metric == "jaccard":
        whole = np.sqrt(whole / whole.sum(axis=1, keepdims=True))
    length = (whole**2).sum(1)
    lost = length - (kept**2).sum(1)
    coded = ((kept - decoded) ** 2).sum(1)
    assert fitness["rows"] == 400
    assert fitness["rotated"] == pytest.approx((lost / length).sum(), abs=1e-4)
    assert fitness["lost"] == pytest.approx(((lost + coded) / length).sum(), rel=1e-4)
    total = encoding.total_fitness(open_store(tmp_path), [done, done], trained_index)
    np.testing.assert_array_equal(total.sizes, 2 * np.bincount(lists, minlength=8))
    assert total.measures()["quantisation_error"] == pytest.approx(fitness["lost"] / 400)


def test_the_only_part_is_written_as_a_shard_to_search(trained_index, tmp_path):
    trained_index, vectors = trained_index
    paths, ids = write_embeddings(tmp_path, vectors, [100])
    encode(
        task(paths, whole=True), open_store(tmp_path), trained_index, no_queries(trained_index.spec)
    )
    shard = read_shard(output(tmp_path), trained_index)
    np.testing.assert_array_equal(np.sort(np.concatenate([*shard.file.ids()])), ids)
    with open(tmp_path / "all", "wb") as file:
        encode_shard(trained_index, [(ids, vectors)], file.write)
    assert (tmp_path / "all").read_bytes() == output(tmp_path).read_bytes()


@pytest.mark.parametrize("run", [1, 7, 100, 10_000])
def test_the_bytes_do_not_depend_on_how_many_entries_are_laid_out_at_a_time(
    run, trained_index, tmp_path, monkeypatch
):
    trained_index, vectors = trained_index
    written = set()
    for rows in (encoding._RUN_ROWS, run):
        monkeypatch.setattr(encoding, "_RUN_ROWS", rows)
        for whole in (True, False):
            encoded = encoding.Encoded(trained_index, 400)
            encoded.add(np.arange(400), vectors)
            data = bytearray()
            encoded.write(whole, data.extend)
            written.add(bytes(data))
    assert len(written) == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=12))
def test_small_row_groups_are_put_together_in_order(sizes):
    ids = np.arange(sum(sizes))
    cut = np.split(ids, np.cumsum(sizes)[:-1]) if sizes else []
    blocks = [*encoding._merged((one, one[:, None].astype("f4")) for one in cut)]
    assert all(len(one) >= encoding._BLOCK_ROWS for one, _ in blocks[:-1])
    assert all(len(one) < encoding._BLOCK_ROWS + 5000 for one, _ in blocks)
    if blocks:
        np.testing.assert_array_equal(np.concatenate([one for one, _ in blocks]), ids)
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in blocks])[:, 0], ids)


def test_encoding_is_bit_equal_for_one_and_two_threads(trained_index):
    trained_index, vectors = trained_index
    written = set()
    for threads in (1, 2):
        index.set_threads(threads)
        data = bytearray()
        encode_shard(trained_index, [(np.arange(400), vectors)], data.extend)
        written.add(bytes(data))
    index.set_threads(1)
    assert len(written) == 1


def test_a_task_that_is_done_again_writes_the_same_bytes(trained_index, tmp_path):
    trained_index, vectors = trained_index
    paths, ids = write_embeddings(tmp_path, vectors, [100])
    found = []
    for name in ("one", "another"):
        truth = ExactNeighbours(vectors[:5], ids[:5], 5, "cosine")
        record = encode(
            replace(task(paths), done=f"runs/{name}.json"),
            open_store(tmp_path),
            trained_index,
            truth,
        )
        found.append(record)
    assert found[0] == found[1]
    assert len(list((tmp_path / "runs").glob("*-*.*"))) == 2  # named by their content


def test_removed_ids_are_in_neither_codes_nor_truth(trained_index, tmp_path):
    trained_index, vectors = trained_index
    paths, ids = write_embeddings(tmp_path, vectors, [100])
    gone = np.sort(np.concatenate([ids[::3], [1, 1 << 60]]))  # some of other files
    np.save(tmp_path / "gone.npy", gone)
    truth = ExactNeighbours(vectors[:20], ids[:20], 300, "cosine")
    encode(task(paths, removed="gone.npy"), open_store(tmp_path), trained_index, truth)
    done = read_json(tmp_path / "runs/done.json")
    left = np.setdiff1d(ids, gone)
    assert (done["removed"], done["shard"]["rows"]) == (len(ids) - len(left), len(left))
    assert sorted(entries(open_as(tmp_path, trained_index), trained_index)) == left.tolist()
    found = ExactNeighbours.from_bytes(output(tmp_path, "truth").read_bytes())
    assert not np.isin(found.ids, gone).any()
    assert (found.ids >= 0).sum(axis=1).min() >= len(left) - 1


def test_everything_removed_leaves_an_empty_shard(trained_index, tmp_path):
    trained_index, vectors = trained_index
    paths, ids = write_embeddings(tmp_path, vectors[:9], [])
    np.save(tmp_path / "gone.npy", ids)
    done = task(paths, removed="gone.npy", whole=True)
    encode(done, open_store(tmp_path), trained_index, no_queries(trained_index.spec))
    header = read_shard(output(tmp_path), trained_index).header
    assert (header.rows, header.min_id, header.max_id) == (0, -1, -1)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "vector 7 has a value that is not finite"), (None, "vector 7 is zero")],
)
def test_a_vector_that_cannot_be_indexed_is_named_with_its_file(
    value, message, trained_index, tmp_path
):
    trained_index, vectors = trained_index
    vectors = vectors.copy()
    vectors[107] = 0 if value is None else vectors[107]
    vectors[107, 3] = 0 if value is None else value
    paths, _ = write_embeddings(tmp_path, vectors, [100])
    with pytest.raises(RequestError, match=rf"000006\.parquet: from id {6 << 32} on, {message}"):
        encode(task(paths), open_store(tmp_path), trained_index, no_queries(trained_index.spec))
    assert not (tmp_path / "runs").exists()


def test_an_id_must_not_come_twice(trained_index, tmp_path):
    trained_index, vectors = trained_index
    with pytest.raises(RequestError, match="id 3 comes more than once"):
        encode_shard(
            trained_index, [([1, 3], vectors[:2]), ([3], vectors[2:3])], bytearray().extend
        )
    paths, _ = write_embeddings(tmp_path, vectors, [100])
    with pytest.raises(RequestError, match="comes more than once"):
        encode(
            task([*paths, paths[0]]),
            open_store(tmp_path),
            trained_index,
            no_queries(trained_index.spec),
        )


def changed(data, **values):
    return json.dumps({**json.loads(data[:4096]), **values}).encode().ljust(4096) + data[4096:]


DAMAGES = {
    "truncated": lambda data: data[:-8],
    "extended": lambda data: data + b"\0" * 8,
    "fewer rows": lambda data: changed(data, rows=399),
    "other lists": lambda data: changed(data, last_list=7),
    "a finished shard": lambda data: changed(data, layout="plain"),
    "longer codes": lambda data: changed(data, code_size=99),
    "not a part": lambda data: b"PAR1" + data[4:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_refused_and_named(damage, trained_index, tmp_path):
    trained_index, vectors = trained_index
    paths, _ = write_embeddings(tmp_path, vectors, [])
    encode(task(paths), open_store(tmp_path), trained_index, no_queries(trained_index.spec))
    path = output(tmp_path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(RequestError, match=r"\.part: (damaged|not an index shard)"):
        open_as(tmp_path, trained_index)


@pytest.mark.parametrize("at", [4096, 4096 + 4 * 3, 4096 + 4 * 7])
def test_a_parts_lists_that_do_not_fit_are_refused_when_read(at, trained_index, tmp_path):
    trained_index, vectors = trained_index
    paths, _ = write_embeddings(tmp_path, vectors, [])
    encode(task(paths), open_store(tmp_path), trained_index, no_queries(trained_index.spec))
    path = output(tmp_path)
    data = bytearray(path.read_bytes())
    data[at : at + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    with pytest.raises(RequestError, match=r"\.part: damaged: 400 rows, its lists are not of them"):
        open_as(tmp_path, trained_index).sizes(0, 8)


def test_a_part_of_another_trained_index_is_refused(trained_index, tmp_path):
    trained_index, vectors = trained_index
    paths, _ = write_embeddings(tmp_path, vectors, [])
    encode(task(paths), open_store(tmp_path), trained_index, no_queries(trained_index.spec))
    path = str(output(tmp_path).relative_to(tmp_path))
    with pytest.raises(RequestError, match="the trained index here is other"):
        open_part(open_store(tmp_path), path, "other", trained_index.code_size, 8)
