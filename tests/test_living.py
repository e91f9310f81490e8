"""The living rows of a store, as readers beside lookalike get them: as a dataset and by id."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import lookalike
from lookalike import RequestError
from lookalike.store import shard_format, shards, snapshot
from lookalike.store.living import united_schema
from lookalike.store.objects import open_store
from lookalike.store.tombstones import write_tombstones
from tests import publishing
from tests.nights import Nights
from tests.vector_stores import clustered, make_store

DIM = 8


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Three shards of which rows died, and one that died altogether; a file of an older night."""
    nights = Nights(tmp_path_factory.mktemp("nights"), DIM)
    first = nights.add(clustered(300, DIM))
    nights.index()
    second = nights.add(clustered(50, DIM, seed=1))
    nights.add(clustered(40, DIM, seed=2), dtype="float32")
    nights.remove([*first[10:200], first[299], second[0], second[49]])
    nights.index()
    stray = nights.store / "embeddings" / "old.parquet"  # of a snapshot that is kept, say
    stray.write_bytes((nights.store / nights.lines[0]["path"]).read_bytes())
    return nights


def assert_living(table: pa.Table, nights: Nights) -> None:
    ids, vectors = nights.living()
    found = table["id"].to_numpy()
    order = np.argsort(found)
    np.testing.assert_array_equal(found[order], ids)
    column = table["embedding"].combine_chunks()
    np.testing.assert_array_equal(column.flatten().to_numpy().reshape(-1, DIM)[order], vectors)


def test_a_glob_gives_deleted_rows_and_the_dataset_none(nights: Nights) -> None:
    everything = pads.dataset(str(nights.store / "embeddings"), format="parquet")
    assert everything.count_rows() == 300 + 50 + 40 + 300
    dataset = lookalike.dataset(nights.store)
    assert isinstance(dataset, pads.Dataset)
    assert dataset.count_rows() == 390 - 193
    assert_living(dataset.to_table(), nights)
    assert dataset.schema.names == [
        *("id", "uri", "content_sha256", "width", "height", "format", "bytes", "label", "embedding")
    ]


def ways(dataset: Any, folder: Path) -> dict[str, Any]:
    """The ways to the rows that Arrow offers, as tables."""
    pads.write_dataset(dataset, folder / "written", format="parquet")
    return {
        "batches": lambda: pa.Table.from_batches(dataset.to_batches(batch_size=7)),
        "scanner": lambda: dataset.scanner().to_table(),
        "scanner of a dataset": lambda: pads.Scanner.from_dataset(dataset).to_table(),
        "reader": lambda: dataset.scanner().to_reader().read_all(),
        "head": lambda: dataset.head(10_000),
        "take": lambda: dataset.take(pa.array(range(dataset.count_rows()))),
        "sorted": lambda: dataset.sort_by("uri").to_table(),
        "another schema": lambda: dataset.replace_schema(dataset.schema).to_table(),
        "filtered": lambda: dataset.filter(pc.field("width") == 4).to_table(),
        "one thread": lambda: dataset.to_table(use_threads=False),
        "written": lambda: pads.dataset(folder / "written").to_table(),
    }


def test_no_way_to_the_rows_leads_to_deleted_ones(nights: Nights, tmp_path: Path) -> None:
    dataset = lookalike.dataset(nights.store)
    for way, read in ways(dataset, tmp_path).items():
        try:
            assert_living(read(), nights)
        except AssertionError as error:
            raise AssertionError(way) from error
    # These would go by files, and Arrow refuses them.
    for read in (
        lambda: list(dataset.get_fragments()),
        lambda: pads.dataset([dataset, dataset]),
        lambda: pickle.dumps(dataset),
    ):
        with pytest.raises(ValueError, match="filter"):
            read()


def test_columns_and_conditions_go_together_with_what_is_deleted(nights: Nights) -> None:
    dataset, (ids, _) = lookalike.dataset(nights.store), nights.living()
    table = dataset.to_table(columns=["uri"], filter=pc.field("label") == "group 1")
    assert table.column_names == ["uri"]
    wanted = [f"/{one >> 32}/{one & 0xFFFFFFFF}.png" for one in ids.tolist()]
    rows = [int(uri.rsplit("/")[-1][:-4]) for uri in wanted]
    expected = [uri for uri, row in zip(wanted, rows, strict=True) if row % 3 == 1]
    assert sorted(table["uri"].to_pylist()) == sorted(expected)
    assert dataset.count_rows(filter=pc.field("label") == "none") == 0


def test_a_dataset_is_of_the_snapshot_that_was_named(nights: Nights) -> None:
    older, newer = snapshot.names(open_store(nights.store))
    assert lookalike.dataset(nights.store, older).count_rows() == 300
    assert lookalike.dataset(nights.store, newer).count_rows() == 197
    with pytest.raises(RequestError, match="no snapshot 'other'"):
        lookalike.dataset(nights.store, "other")


def test_after_compaction_only_the_new_files_count(tmp_path: Path) -> None:
    nights = Nights(tmp_path, DIM)
    for seed in range(3):
        ids = nights.add(clustered(60, DIM, seed=seed))
        nights.remove(ids[:20])
    nights.index()
    nights.compact()
    nights.index()
    assert pads.dataset(str(tmp_path / "embeddings")).count_rows() > 120
    assert_living(lookalike.dataset(tmp_path).to_table(), nights)


@pytest.mark.parametrize("gone", ["none", "one", "all"])
def test_stores_where_nothing_or_everything_is_deleted(gone: str, tmp_path: Path) -> None:
    ids, _, manifest = make_store(tmp_path, clustered(30, DIM))
    deleted = {"none": ids[:0], "one": ids[:1], "all": ids}[gone]
    record = write_tombstones(
        open_store(tmp_path), "snapshots/one/dead.npy", [*deleted, (99 << 32) + 1]
    )
    line = {**record.to_json(), "kind": "tombstones"}
    publishing.publish(open_store(tmp_path), {**manifest, "files": [*manifest["files"], line]})
    dataset, searcher = lookalike.dataset(tmp_path), lookalike.open(tmp_path)
    assert dataset.count_rows() == searcher.count == 30 - len(deleted)
    living = ids[len(deleted) :]
    assert dataset.to_table(columns=["id"])["id"].to_pylist() == living.tolist()
    assert searcher.rows(living)["id"].to_pylist() == living.tolist()
    if len(deleted):
        with pytest.raises(RequestError, match=rf"rows: id {deleted[0]} is of deleted rows"):
            searcher.rows(deleted[:1])


def test_a_missing_file_is_told_and_not_left_out(tmp_path: Path) -> None:
    _, _, manifest = make_store(tmp_path, clustered(30, DIM))
    (tmp_path / snapshot.files_of(manifest, "embedding")[2]["path"]).unlink()
    with pytest.raises(RequestError, match=r"000007\.parquet: missing: .* run: lookalike verify"):
        lookalike.dataset(tmp_path)


def test_columns_that_some_files_lack_are_null(tmp_path: Path) -> None:
    lines, ids = [], []
    columns = [
        pa.schema([("label", pa.string())]),
        pa.schema([("price", pa.int32()), ("label", pa.string())]),
        pa.schema([("price", pa.int64())]),
    ]
    for number, metadata in enumerate(columns, start=1):
        schema = shard_format.schema(DIM, metadata, {})
        path = f"embeddings/{number}.parquet"
        with shards.open_shard(open_store(tmp_path), path, schema, number) as (writer, pending):
            fields = {
                "uri": f"/{number}.png",
                "content_sha256": b"\0" * 32,
                "width": 4,
                "height": 3,
                "format": "PNG",
                "bytes": 9,
                "label": f"l{number}",
                "price": number,
            }
            kept = {name: fields[name] for name in schema.names if name in fields}
            ids.append(writer.append(kept, np.ones(DIM)))
        lines.append(shards.shard_record(pending.finished, number, 1))
    _, _, manifest = make_store(tmp_path / "store", clustered(30, DIM))
    publishing.publish(open_store(tmp_path), {**manifest, "files": lines})
    table = lookalike.dataset(tmp_path).to_table()
    assert table.schema.names[7:] == ["label", "price", "embedding"]
    assert table["label"].to_pylist() == ["l1", "l2", None]
    assert table["price"].to_pylist() == [None, 2, 3]
    assert table["price"].type == pa.int64()
    assert united_schema(pq.read_schema(tmp_path / line["path"]) for line in lines) == table.schema


# --- by id ------------------------------------------------------------------------------------


def test_rows_come_in_the_order_asked(nights: Nights) -> None:
    searcher, (ids, vectors) = lookalike.open(nights.store), nights.living()
    order = np.random.default_rng(0).permutation(len(ids))
    order = np.concatenate([order, order[:3]])  # some again
    table = searcher.rows(ids[order])
    assert table.schema.equals(lookalike.dataset(nights.store).schema)
    assert table["id"].to_pylist() == ids[order].tolist()
    found = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, DIM)
    np.testing.assert_array_equal(found, vectors[order])
    uris = [f"/{one >> 32}/{one & 0xFFFFFFFF}.png" for one in ids[order].tolist()]
    assert table["uri"].to_pylist() == uris


def test_rows_of_any_iterable_and_some_columns(nights: Nights) -> None:
    searcher, (ids, _) = lookalike.open(nights.store), nights.living()
    for given in (ids[:2].tolist(), tuple(ids[:2]), iter(ids[:2]), pa.array(ids[:2]), set(ids[:1])):
        table = searcher.rows(given, ["label", "id"])
        assert table.column_names == ["label", "id"]
        assert table["id"].to_pylist()[:1] == ids[:1].tolist()
    assert searcher.rows([], ["uri"]).num_rows == 0
    assert searcher.rows([]).schema.equals(lookalike.dataset(nights.store).schema)
    assert searcher.rows(ids[:1], "uri").to_pydict() == {"uri": ["/1/0.png"]}
    [found] = searcher.search(vectors=np.ones(DIM), k=3)
    assert searcher.rows(one.id for one in found)["uri"].to_pylist() == [one.uri for one in found]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([(1 << 32) + 10], r"rows: id 4294967306 is of deleted rows"),
        ([1 << 32, *((1 << 32) + row for row in range(10, 15))], r"ids .*, … \(5 in"),
        ([(1 << 32) + 300], "rows: id 4294967596 is of no row of this snapshot"),
        ([77 << 32], "rows: id .* is of no row of this snapshot"),
        ([0], "rows: id 0 is of no row"),
        ([-1], "rows: id -1 is of no row"),
        ([2**63 - 1], "rows: id .* is of no row"),
        ([2**63], "rows: an id is beyond 64 bits"),
        (["/1/0.png"], "rows: needs whole numbers, the ids of rows; got str '/1/0.png'"),
        ([1.0], "rows: needs whole numbers, the ids of rows; got float 1.0"),
        ([True], "rows: needs whole numbers, .* got bool True"),
        (5, "rows: needs whole numbers, the ids of rows; got int 5"),
        (np.ones((2, 2), int), "rows: needs whole numbers"),
    ],
)
def test_ids_of_no_living_row_are_refused(ids: Any, message: str, nights: Nights) -> None:
    with pytest.raises(RequestError, match=message):
        lookalike.open(nights.store).rows(ids)


def test_columns_that_there_are_not_are_named(nights: Nights) -> None:
    with pytest.raises(RequestError, match=r"no column 'lable'; the columns are id, .*label, emb"):
        lookalike.open(nights.store).rows([1 << 32], ["lable"])
