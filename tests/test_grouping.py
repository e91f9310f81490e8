from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.ivf import grouping
from lookalike.ivf.encoding import Encoded, shard_header
from lookalike.ivf.grouping import GroupTask, group, list_ranges, list_sizes
from lookalike.ivf.invlists import read_shard
from lookalike.ivf.part_files import write_part
from lookalike.ivf.trained_index import TrainedIndex
from lookalike.store.durable import read_json
from lookalike.store.objects import open_store
from tests.index_shards import encode_shard
from tests.vector_stores import trained


@pytest.fixture(scope="module", params=[4, 8])
def made(request):
    """A trained index, and (list, code) of 400 rows, encoded at once."""
    data, spec, vectors = trained(400, 24, nlist=8, nbits=request.param)
    trained_index = TrainedIndex(data, spec)
    prepared = trained_index.prepare(vectors)
    lists = trained_index.assign(prepared)
    return trained_index, vectors, lists, trained_index.encode(prepared, lists)


def write_parts(store, made, ids, cuts):
    """Parts of the rows in `cuts` (arrays of row numbers); returns their paths."""
    trained_index, _, lists, codes = made
    paths = []
    store.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(cuts):
        rows = rows[np.lexsort((ids[rows], lists[rows]))]
        extremes = (int(ids[rows].min(initial=-1)), int(ids[rows].max(initial=-1)))
        header = shard_header(trained_index, "columns", 0, 8, len(rows), extremes)
        paths.append(f"part-{number}")
        with open(store / paths[-1], "wb") as file:
            sizes = np.bincount(lists[rows], minlength=8)
            write_part(header, sizes, [codes[rows]], ids[rows], file.write)
    return paths


def grouped(store, trained_index, paths, shards):
    """The bytes of every shard."""
    ranges = list_ranges(list_sizes(open_store(store), paths, trained_index), shards)
    output = []
    for number, (first, last) in enumerate(ranges):
        task = GroupTask(number, first, last, tuple(paths), f"s{number}", f"d{number}.json")
        record = group(task, open_store(store), trained_index)
        output.append((store / record["shard"]["path"]).read_bytes())
    return output


def shard_of(store, number):
    """Path of the shard that a task's record names."""
    return store / read_json(store / f"d{number}.json")["shard"]["path"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), parts=st.integers(1, 7), shards=st.integers(1, 5))
def test_any_parts_in_any_order_give_the_same_bytes(seed, parts, shards, made, tmp_path_factory):
    trained_index, vectors, _, _ = made
    rng = np.random.default_rng(seed)
    ids = (rng.permutation(400) + (np.arange(400) % 3 << 32)).astype(np.int64)
    store = tmp_path_factory.mktemp("parts")
    whole = write_parts(store / "one", made, ids, [np.arange(400)])
    expected = grouped(store / "one", trained_index, whole, shards)
    cuts = [np.flatnonzero(own) for own in rng.integers(0, parts, 400) == np.arange(parts)[:, None]]
    paths = write_parts(store / "many", made, ids, cuts)
    rng.shuffle(paths)
    assert grouped(store / "many", trained_index, paths, shards) == expected
    if shards == 1:
        data = bytearray()
        encode_shard(trained_index, [(ids, vectors)], data.extend)
        assert expected == [bytes(data)]


@pytest.mark.parametrize("run", [1, 30, 150])
def test_the_bytes_do_not_depend_on_how_many_lists_are_sorted_at_a_time(
    run, made, tmp_path, monkeypatch
):
    paths = write_parts(tmp_path, made, np.arange(400), np.array_split(np.arange(400), 3))
    expected = grouped(tmp_path, made[0], paths, 2)
    monkeypatch.setattr(grouping, "_RUN_ROWS", run)
    assert grouped(tmp_path, made[0], paths, 2) == expected


def test_shards_hold_their_lists_and_together_everything(made, tmp_path):
    trained_index, vectors, lists, _ = made
    ids = np.arange(400) + (9 << 32)
    paths = write_parts(tmp_path, made, ids, np.array_split(np.arange(400), 3))
    grouped(tmp_path, trained_index, paths, 3)
    ends, found = [0], []
    for number in range(3):
        shard = read_shard(shard_of(tmp_path, number), trained_index)
        header = shard.header
        assert header.first_list == ends[-1]
        ends.append(header.last_list)
        for own, held in enumerate(shard.file.ids(), start=header.first_list):
            np.testing.assert_array_equal(held, ids[lists == own])
            found.append(held)
        held = ids[(lists >= header.first_list) & (lists < header.last_list)]
        assert (header.rows, header.min_id, header.max_id) == (len(held), held[0], held[-1])
        done = read_json(tmp_path / f"d{number}.json")
        assert done["shard"]["path"].startswith(f"s{number}-")
        assert done["shard"]["rows"] == done["header"]["rows"] == header.rows
    assert ends[-1] == 8
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), ids)
    queries = trained_index.prepare(vectors[:10])
    coarse = trained_index.coarse(queries, 8)
    for number in range(3):
        shard = read_shard(shard_of(tmp_path, number), trained_index)
        found = shard.search(queries, 400, *coarse)[0]
        assert ((found >= 0).sum(axis=1) == shard.header.rows).all()


def test_empty_parts_and_empty_ranges(made, tmp_path):
    trained_index = made[0]
    nothing = np.empty(0, dtype=np.intp)
    paths = write_parts(tmp_path, made, np.arange(400), [nothing, nothing])
    grouped(tmp_path, trained_index, paths, 2)
    for number in range(2):
        header = read_shard(shard_of(tmp_path, number), trained_index).header
        assert (header.rows, header.min_id, header.max_id) == (0, -1, -1)


def test_an_id_in_two_parts_is_refused(made, tmp_path):
    paths = write_parts(tmp_path, made, np.arange(400), [np.arange(300), np.arange(299, 400)])
    with pytest.raises(RequestError, match="id 299 comes more than once"):
        grouped(tmp_path, made[0], paths, 1)


def test_a_damaged_part_and_one_of_another_trained_index_are_named(made, tmp_path):
    trained_index = made[0]
    paths = write_parts(tmp_path, made, np.arange(400), np.array_split(np.arange(400), 2))
    data = (tmp_path / paths[1]).read_bytes()
    (tmp_path / paths[1]).write_bytes(data[:-1])
    with pytest.raises(RequestError, match="part-1: damaged"):
        grouped(tmp_path, trained_index, paths, 1)
    (tmp_path / paths[1]).write_bytes(data.replace(trained_index.sha256.encode(), b"0" * 64))
    with pytest.raises(RequestError, match=f"part-1: .*trained index {'0' * 64}"):
        grouped(tmp_path, trained_index, paths, 1)
    (tmp_path / paths[1]).unlink()
    with pytest.raises(RequestError, match="part-1: the index shard cannot be read"):
        grouped(tmp_path, trained_index, paths, 1)


def test_what_an_encoder_writes_as_a_part_is_grouped_to_what_it_writes_whole(made, tmp_path):
    trained_index, vectors, _, _ = made
    ids = np.random.default_rng(0).permutation(400).astype(np.int64)
    for whole in (True, False):
        encoded = Encoded(trained_index, 400)
        encoded.add(ids, vectors)
        with open(tmp_path / str(whole), "wb") as file:
            encoded.write(whole, file.write)
    assert grouped(tmp_path, trained_index, ["False"], 1) == [(tmp_path / "True").read_bytes()]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=60), st.integers(1, 70))
def test_ranges_are_nearly_equal_and_leave_nothing_out(sizes, shards):
    sizes = np.array(sizes)
    ranges = list_ranges(sizes, shards)
    assert len(ranges) == min(shards, len(sizes))
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(sizes)
    assert all(one[1] == two[0] for one, two in pairwise(ranges))
    assert all(first < last for first, last in ranges)
    if len(ranges) * 10 <= len(sizes):
        rows = np.array([sizes[first:last].sum() for first, last in ranges])
        assert rows.max() <= sizes.sum() / len(ranges) + 2 * max(1, sizes.max())


def test_ranges_of_equal_lists_are_equal():
    assert list_ranges(np.full(12, 7), 4) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert list_ranges(np.zeros(4, dtype=int), 2) in ([(0, 1), (1, 4)], [(0, 2), (2, 4)])
    assert list_ranges(np.array([100, 1, 1, 1]), 2) == [(0, 1), (1, 4)]
    assert list_ranges(np.array([1, 1, 1, 100]), 2) == [(0, 3), (3, 4)]
