from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.reconcile import by_content, copying
from lookalike.reconcile.by_content import Copies
from lookalike.reconcile.by_name import ByName
from lookalike.reconcile.contents import SETTLED
from lookalike.reconcile.copying import COPY_ROW, Copying, copy_rows
from lookalike.reconcile.settling import COPIED, LISTED, NAMES, Settling
from lookalike.records import SourceFile
from lookalike.sources.listing import listing_schema, write_listing
from lookalike.store import shard_format, shards
from lookalike.store.exchange import Dealing
from lookalike.store.files import HashedName
from lookalike.store.meeting import Meeting
from lookalike.store.objects import Store, open_store
from lookalike.store.partitions import uri_hashes, uri_partitions
from tests.exchanged import meet_here
from tests.file_records import file_record

METADATA = pa.schema([("label", pa.string()), ("year", pa.int64()), ("source", pa.string())])
OF = Settling(
    compared="compared",
    folder="resolved",
    embedded="embedded",
    units=2,
    at_once=1,
    first_file_no=38,
    by_content=True,
    touched=9,
    parts=4,
    contents=2,
    goes_on=True,
    unread=False,
)


def stored(store: Path, dtype: str) -> dict[int, str]:
    """Two shards of three rows, with odd bits in their vectors."""
    schema = shard_format.schema(2, pa.schema([("old", pa.string())]), {}, dtype)
    paths = {}
    for number in (3, 8):
        paths[number] = f"embeddings/{number}.parquet"
        with shards.open_shard(open_store(store), paths[number], schema, number) as (writer, _):
            for row in range(3):
                values = {
                    "uri": f"/{number}/{row}",
                    "content_sha256": bytes([number, row]) * 16,
                    "width": row,
                    "height": number,
                    "format": "PNG",
                    "bytes": row + 9,
                    "old": "x",
                }
                vector = np.array([number + row / 3, -0.0], dtype=np.float32)
                writer.append(values, vector.astype(dtype))
    return paths


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_copies_have_the_vectors_bit_for_bit(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_BLOCK", 2)
    paths = stored(tmp_path, dtype)
    source = [(8 << 32) + 1, 3 << 32, (8 << 32) + 2]
    rows = pa.table(
        {
            "id": [(20 << 32) + i for i in (2, 0, 1)],
            "_was_id": [source[i] for i in (2, 0, 1)],
            "uri": ["/c", "/a", "/b"],
            "label": ["m", "l", None],
            "year": [None, 1, 2],
            "source": ["z", "x", "y"],
        }
    )
    schema = shard_format.schema(2, METADATA, {"lookalike.x": "y"}, dtype)
    name = HashedName("embeddings/20", ".parquet")
    line = copy_rows(open_store(tmp_path), name, 20, rows, paths, schema)
    path = line["path"]
    record = file_record(tmp_path, path)
    assert line == shards.shard_record(record, 20, 3)
    assert path == f"embeddings/20-{record.sha256[:16]}.parquet"
    assert pq.read_schema(tmp_path / path).metadata[b"lookalike.x"] == b"y"
    before = {
        row["id"]: row
        for path in paths.values()
        for row in pq.read_table(tmp_path / path).to_pylist()
    }
    rows = pq.read_table(tmp_path / path).to_pylist()
    assert [row["id"] for row in rows] == [(20 << 32) + i for i in range(3)]
    assert [(row["uri"], row["label"], row["year"], row["source"]) for row in rows] == [
        ("/a", "l", 1, "x"),
        ("/b", None, 2, "y"),
        ("/c", "m", None, "z"),
    ]
    for row, old in zip(rows, source, strict=True):
        for name in ("content_sha256", "width", "height", "format", "bytes"):
            assert row[name] == before[old][name]
        found, expected = (np.array(one["embedding"], dtype=dtype) for one in (row, before[old]))
        assert found.tobytes() == expected.tobytes()


def listed(store: Store, names: list[str]) -> tuple[str, ...]:
    files = [
        SourceFile(name, 1, "v", metadata={"label": f"{name} {i}", "year": i, "source": "s"})
        for i, name in enumerate(names)
    ]
    half = len(files) // 2
    schema = listing_schema(METADATA)
    return tuple(
        path
        for number, some in enumerate((files[:half], files[half:]))
        for path in write_listing(store, f"listing/{number}", some, schema).parts
    )


def settled(store: Store, wanted: dict[int, list[str]]) -> Copies:
    """What settling leaves, of which all rows of each partition of contents are to be copied."""
    for number in range(2):  # the units' own rows have no content
        store.write_json(OF.record("dealt", number), {"pieces": [], "dealt": None})
    for number, uris in wanted.items():
        count = len(uris)
        sources = np.arange(count) % 3 + (3 << 32)
        columns = {
            "uri": uris,
            "status": ["unchanged"] * count,
            "reason": [""] * count,
            "detail": [""] * count,
            "bytes": [1] * count,
            "version": ["v"] * count,
            "content_sha256": [bytes([number, i]) * 16 for i in range(count)],
            "id": -1 - (number << 32 | np.arange(count)),
            "metadata_hash": [1] * count,
            **{f"known_{name}": [None] * count for name in ("status", "reason", "detail")},
            "was": ["unchanged"] * count,
            "source": sources,
        }
        table = pa.table(columns, schema=SETTLED)
        with Dealing(store, OF.scratch("dealt/contents", number), 4) as dealing:
            dealing.write(table, uri_partitions(table["uri"], 4), NAMES)
        with store.write(f"wanted/{number}.npy") as pending:
            np.save(pending.file, np.unique(uri_hashes(table["uri"])))
        wanted_file = pending.finished.to_json()
        record = {**dealing.record(), "rows": count, "copies": count, "wanted": wanted_file}
        store.write_json(OF.record("dealt/contents", number), record)
    return Copies.of([len(wanted.get(number, [])) for number in range(2)], OF.first_copy)


def conclude(store: Store, copies: Copies, parts: tuple[str, ...]) -> None:
    by_name = ByName(OF, copies, METADATA, parts)
    meet_here(store)(
        Meeting(
            "names",
            by_name.tasks,
            by_name.deal,
            by_name.take,
            OF.dealt,
            f"{OF.folder}/dealt/names",
            sides=(NAMES, LISTED),
            every=OF.parts,
        )
    )


def test_metadata_come_from_the_first_listing_of_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_content, "COPY_ROWS", 3)
    store, paths = open_store(tmp_path), stored(tmp_path, "float32")
    names = [f"/{i}" for i in range(20)]
    parts = listed(store, [*names, "/19", "/3"])
    wanted = {0: [f"/{i}" for i in (19, 3, 4, 5, 0)], 1: ["/7", "/8", "/1"]}
    store.write_json(OF.shards, paths)
    copies = settled(store, wanted)
    assert (copies.rows, copies.shards, copies.files) == (8, 3, (0, 2, 3))
    ids = copies.placed(pa.chunked_array([[-1, -5, None, 7, -1 - (1 << 32 | 2)]]))
    assert ids.to_pylist() == [40 << 32, (41 << 32) + 1, None, 7, (42 << 32) + 2]
    conclude(store, copies, parts)
    copy = Copying(OF, "run", METADATA, shard_format.schema(2, METADATA, {}))
    found = meet_here(store)(
        Meeting(
            "copies", OF.parts, OF.deal_named, copy.take, OF.dealt, "resolved/copied", (COPIED,)
        )
    )
    assert [found[number]["shard"]["file_no"] for number in range(3)] == [40, 41, 42]
    lines = [found[number]["shard"] for number in range(3)]
    assert lines[0]["path"].startswith("embeddings/00000040-run-")
    tables = [pq.read_table(tmp_path / line["path"]).to_pylist() for line in lines]
    assert [len(table) for table in tables] == [3, 2, 3]
    rows = [row for table in tables for row in table]
    assert [
        (row["uri"], row["label"], row["year"], row["source"], row["content_sha256"][1])
        for row in rows
    ] == [
        (uri, f"{uri} {uri[1:]}", int(uri[1:]), "s", i % 3)
        for uris in wanted.values()
        for i, uri in enumerate(uris)
    ]


def test_a_name_that_is_not_listed_is_an_error(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write_json(OF.shards, {3: ""})
    copies = settled(store, {1: ["/a", "/b"]})
    with pytest.raises(RuntimeError, match="/b: it is to be stored anew, but it is not in the"):
        conclude(store, copies, listed(store, ["/a", "/c"]))


def test_nothing_to_copy_looks_for_no_metadata(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write_json(OF.shards, {})
    copies = settled(store, {})
    assert (copies.rows, copies.shards) == (0, 0)
    conclude(store, copies, ("not there",))
    assert store.files(f"{OF.folder}/dealt/listed") == []
    assert COPY_ROW.names == ["id", "_was_id", "uri"]
