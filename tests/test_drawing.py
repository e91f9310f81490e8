"""Samples drawn by tasks over groups of files are those of a look at all ids at once."""

from __future__ import annotations

from itertools import count as numbers

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.ivf import drawing
from lookalike.ivf.drawing import Draw, Drawn, DrawTask, Span, draw
from lookalike.sampling import ALL, sample_ids
from lookalike.store import shard_format, shards
from lookalike.store.objects import Store, open_store
from lookalike.store.vector_reader import VectorReader

Ids = npt.NDArray[np.int64]
EXAMPLES = numbers()
ROWS = {9: 130, 4: 1, 2: 300}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three shards; the vector of an id is (file number, row)."""
    store = open_store(tmp_path_factory.mktemp("store"))
    for file_no, rows in ROWS.items():
        schema = shard_format.schema(2, pa.schema([]), {})
        with shards.open_shard(store, path_of(file_no), schema, file_no) as (writer, _):
            for row in range(rows):
                writer.append({"uri": f"/{row}"}, np.array([file_no, row], np.float32))
    return store


def path_of(file_no: int) -> str:
    return f"embeddings/{file_no}.parquet"


def vectors_of(ids: Ids) -> npt.NDArray[np.float32]:
    return np.stack([ids >> 32, ids & 0xFFFFFFFF], axis=1).astype(np.float32)


def all_ids(deleted: Ids) -> Ids:
    found = [(file_no << 32) + np.arange(rows) for file_no, rows in ROWS.items()]
    return np.setdiff1d(np.concatenate(found), deleted)


def run(
    store: Store, spans: list[list[Span]], draws: tuple[Draw, ...], deleted: Ids, name: str
) -> list[dict]:
    removed = ""
    if len(deleted):
        removed = f"{name}/dead.npy"
        with store.write(removed) as pending:
            np.save(pending.file, deleted)
    return [
        draw(DrawTask(n, tuple(group), 2, draws, f"{name}/{n}", f"{name}/{n}.json", removed), store)
        for n, group in enumerate(spans)
    ]


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 500),
    seed=st.integers(0, 3),
    order=st.permutations(sorted(ROWS)),
    cut=st.integers(0, 3),
    halves=st.booleans(),
    data=st.data(),
)
def test_tasks_draw_what_one_look_at_all_ids_draws(
    store: Store,
    count: int,
    seed: int,
    order: list[int],
    cut: int,
    halves: bool,
    data: st.DataObject,
) -> None:
    every = all_ids(np.empty(0, dtype=np.int64)).tolist()
    chosen = st.lists(st.sampled_from(every), unique=True, max_size=60)
    deleted, without = (np.array(sorted(data.draw(chosen)), dtype=np.int64) for _ in range(2))
    spans = [Span(path_of(one), one, ROWS[one]) for one in order]
    if halves:
        spans = [
            part
            for one in spans
            for part in (
                Span(one.path, one.file_no, one.rows // 2),
                Span(one.path, one.file_no, one.rows - one.rows // 2, one.rows // 2),
            )
        ]
    living = all_ids(deleted)
    assert sum(span.living(deleted) for span in spans) == len(living)
    wider = Draw.among(len(living), seed, count + len(without))
    groups = [group for group in (spans[:cut], spans[cut:]) if group]
    name = f"drawn-{next(EXAMPLES)}"
    records = run(store, groups, (Draw(seed + 1, 3), wider), deleted, name)
    found = Drawn(store, records, 1, Draw(seed, count), 2, without)
    kept = np.setdiff1d(living, without)
    assert found.ids.tolist() == sample_ids([kept], count, seed).tolist()
    assert np.array_equal(found[:], vectors_of(found.ids))
    assert len(Drawn(store, records, 0, Draw(seed + 1, 3), 2)) == min(3, len(living))


def test_a_sample_is_read_by_slices_and_rows(store: Store) -> None:
    spans = [[Span(path_of(one), one, rows)] for one, rows in ROWS.items()]
    wanted = Draw.among(431, 3, 50)
    records = run(store, spans, (wanted,), np.empty(0, dtype=np.int64), "slices")
    sample = Drawn(store, records, 0, wanted, 2)
    assert len(sample) == 50
    expected = vectors_of(sample.ids)
    rows = np.array([3, 40, 4])
    assert np.array_equal(sample[10:20], expected[10:20])
    assert np.array_equal(sample[rows], expected[rows])


def test_files_hold_little_more_than_the_sample() -> None:
    """Of a store of a billion rows as of a small one."""
    for rows, count in ((10**9, 10**6), (10**6, 1000), (10**5, 1)):
        share = Draw.among(rows, 0, count).limit / ALL
        assert count < share * rows < count + 8 * count**0.5 + 65
    assert Draw.among(1000, 0, 990).limit == ALL


@pytest.mark.parametrize("count", [1, 30, 1000])
def test_a_limit_leaves_enough(count: int) -> None:
    """A sample is never short: the limit leaves room for eight standard deviations."""
    ids = np.arange(100_000, dtype=np.int64)
    for seed in range(50):
        wanted = Draw.among(len(ids), seed, count)
        assert len(sample_ids([ids], 10**6, seed, wanted.limit)) >= count


def test_vectors_are_read_in_blocks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = VectorReader.vectors

    def watched(reader: VectorReader, ids: Ids) -> npt.NDArray[np.float32]:
        asked.append(len(ids))
        return read(reader, ids)

    monkeypatch.setattr(drawing, "_READ_ROWS", 64)
    monkeypatch.setattr(VectorReader, "vectors", watched)
    spans = [Span(path_of(one), one, rows) for one, rows in ROWS.items()]
    records = run(store, [spans], (Draw(0, 10**6),), np.empty(0, dtype=np.int64), "blocks")
    assert sum(asked) == 431
    assert max(asked) == 64
    assert records[0]["drawn"][0]["rows"] == 431
    assert records[0]["drawn"][0]["bytes"] == 431 * 16
