"""The listing of tables of vectors, and which uris are not new in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.sources import vector_listing
from lookalike.sources.listing import listing_schema
from lookalike.sources.vector_tables import VectorTable, list_tables
from lookalike.store.objects import open_store
from tests.scanning import list_vectors
from tests.vector_files import write_vectors


def tables_of(*specs: Path | str) -> list[VectorTable]:
    return list_tables([str(spec) for spec in specs], pytest.fail)


def listed(store: Path, *specs: Path | str) -> list[dict[str, Any]]:
    """All rows of the listing, in order."""
    listing, _ = list_vectors(open_store(store), "listing", tables_of(*specs), 8)
    parts = [pq.read_table(store / part) for part in listing.parts]
    assert all(part.schema == listing_schema(pa.schema([])) for part in parts)
    assert listing.rows == sum(part.num_rows for part in parts)
    return [row for part in parts for row in part.to_pylist()]


def test_every_row_of_every_table_is_listed(tmp_path: Path) -> None:
    one = write_vectors(tmp_path / "1.parquet", np.ones((5, 2)), group=2)
    two = write_vectors(tmp_path / "2.parquet", np.ones((1, 2)), ["x"])
    rows = listed(tmp_path, one, two)
    assert len(rows) == 6
    version = one.stat().st_mtime_ns
    assert rows[:5] == [
        {
            "uri": f"1/{i}",
            "bytes": 8,
            "version": f"{version}+{i}",
            "problem": "",
            "_container": str(one),
            "_offset": i,
            "_group": i // 2,
            "_hides": None,
        }
        for i in range(5)
    ]
    assert (rows[5]["uri"], rows[5]["_offset"]) == ("x", 0)


@given(
    uris=st.lists(
        st.lists(st.sampled_from(["a", "b", "ä", "", None, "c" * 99]), max_size=12),
        min_size=1,
        max_size=4,
    ).filter(any),
    group=st.integers(1, 5),
    part_rows=st.integers(1, 30),
)
def test_a_uri_belongs_to_the_first_row_that_bears_it(
    tmp_path_factory: pytest.TempPathFactory,
    uris: list[list[str | None]],
    group: int,
    part_rows: int,
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    for number, one in enumerate(uris):
        write_vectors(folder / f"{number}.parquet", np.ones((len(one), 2)), one, group=group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_listing, "PARTITION_ROWS", part_rows)
        patch.setattr(vector_listing, "_PART_ROWS", part_rows)
        patch.setattr(vector_listing, "_BATCH", 3)
        rows = listed(folder / "store", folder)
    seen: set[str | None] = {None, ""}
    expected = []
    for number, one in enumerate(uris):
        for row, uri in enumerate(one):
            expected.append(f"{folder}/{number}.parquet#row={row}" if uri in seen else uri)
            seen.add(uri)
    assert [row["uri"] for row in rows] == expected


def test_how_many_rows_repeat_a_uri_is_told(tmp_path: Path) -> None:
    one = write_vectors(tmp_path / "1.parquet", np.ones((4, 2)), ["a", "a", None, "b"])
    two = write_vectors(tmp_path / "2.parquet", np.ones((3, 2)), ["b", None, "c"])
    assert list_vectors(open_store(tmp_path), "listing", tables_of(one, two), 8)[1] == 2


def test_digests_with_a_half_in_common_are_told_apart() -> None:
    digests = pa.table([[5] * 6, [1, 2, 1, 3, 2, 1], range(6)], schema=vector_listing.DIGESTS)
    assert vector_listing.repeats(digests).tolist() == [2, 4, 5]


def test_what_cannot_be_read_is_listed_under_names_of_its_own(tmp_path: Path) -> None:
    uris: list[str | None] = ["a", "b", "a", "b"]
    one = write_vectors(tmp_path / "1.parquet", np.ones((4, 2)), uris, group=2)
    two = write_vectors(tmp_path / "2.parquet", np.ones((1, 2)), ["b"])
    tables = tables_of(one, two)
    chunk = pq.read_metadata(one).row_group(0).column(0)
    with open(one, "r+b") as file:
        file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
        file.write(bytes(chunk.total_compressed_size))

    def names(folder: str) -> list[str]:
        listing, _ = list_vectors(open_store(tmp_path), folder, tables, 8)
        parts = [pq.read_table(tmp_path / part) for part in listing.parts]
        return [row["uri"] for row in pa.concat_tables(parts).to_pylist()]

    lost = [f"{one}#row={i}" for i in range(4)]
    assert names("before") == [*lost[:2], "a", "b", f"{two}#row=0"]
    one.unlink()
    assert names("after") == [*lost, "b"]


def test_uris_of_other_types_of_text(tmp_path: Path) -> None:
    for kind in (pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        path = write_vectors(tmp_path / f"{kind}.parquet", np.ones((3, 2)))
        table = pq.read_table(path)
        column = pa.array(["x", None, "y"], pa.string()).cast(kind)
        pq.write_table(table.set_column(0, "uri", column), path)
        assert [row["uri"] for row in listed(tmp_path / f"{kind}", path)] == [
            "x",
            f"{path}#row=1",
            "y",
        ]


def test_memory_is_that_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    rows = 600_000
    schema = pa.schema([("uri", pa.string()), ("embedding", pa.list_(pa.float32(), 1))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 50_000):
            uris = [f"/data/{i:050d}" for i in range(start, start + 50_000)]
            vectors = pa.FixedSizeListArray.from_arrays(np.ones(50_000, np.float32), 1)
            writer.write_table(pa.table([pa.array(uris), vectors], schema=schema))
    before, most, listed_rows = pa.total_allocated_bytes(), [0], vector_listing._listed

    def measured(*args: Any) -> pa.Table:
        most[0] = max(most[0], pa.total_allocated_bytes() - before)
        return listed_rows(*args)

    monkeypatch.setattr(vector_listing, "_listed", measured)
    listing, _ = list_vectors(open_store(tmp_path), "listing", tables_of(path), 4)
    assert listing.rows == rows
    assert len(listing.parts) == 3
    assert 0 < most[0] < 100 << 20
