from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike import vector_units
from lookalike.records import Unit
from lookalike.sources.repeated_uris import find_repeats
from lookalike.sources.vector_pieces import cut_pieces, read_unit, write_units
from lookalike.sources.vector_tables import list_tables, metadata_schema
from lookalike.store.ledger import LedgerRow, read_ledger
from lookalike.store.shards import iter_blocks, iter_rows
from lookalike.store.storage import file_record
from lookalike.vector_faults import Rules
from lookalike.vector_units import ingest_unit
from tests.vector_files import COMPONENTS, write_vectors

DIM = 6
VECTORS = np.random.default_rng(0).standard_normal((50, DIM)).astype(np.float32)


def unit_of(number: int, source: str) -> Unit:
    return Unit(number, 7 + number, source, f"embeddings/{number}.parquet",
                f"ledger/{number}.parquet", f"done/{number}.json")  # fmt: skip


def ingest(
    store: Path,
    *paths: Path,
    unit_rows: int = 65_536,
    metric: str = "cosine",
    dtype: str = "float32",
) -> list[dict[str, Any]]:
    """What the done files of all units say."""
    tables = list_tables([str(path) for path in paths], pytest.fail)
    repeats = find_repeats(tables, store / "scratch")
    count = write_units(store, "units", tables, repeats, unit_rows)
    units = [unit_of(number, f"units/{number:06d}.parquet") for number in range(count)]
    rules, metadata = Rules(DIM, metric, dtype), metadata_schema(tables)
    return [ingest_unit(unit, store, rules, metadata, {"lookalike.x": "y"}) for unit in units]


def ledger(store: Path, number: int = 0) -> list[LedgerRow]:
    return list(read_ledger(store / f"ledger/{number}.parquet"))


def stored(store: Path, number: int = 0) -> npt.NDArray[np.float32]:
    return np.concatenate(
        [block for _, block in iter_blocks(store / f"embeddings/{number}.parquet")]
    )


# --- cutting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "group", "unit_rows", "expected"),
    [
        (50, 10, 25, [(0, 2, 0, 20), (2, 4, 20, 20), (4, 5, 40, 10)]),
        (50, 30, 25, [(0, 1, 0, 30), (1, 2, 30, 20)]),  # a row group is never cut
        (50, 10, 50, [(0, 5, 0, 50)]),
        (1, 10, 50, [(0, 1, 0, 1)]),
        (0, 10, 50, []),
    ],
)
def test_units_are_runs_of_row_groups(
    tmp_path: Path, rows: int, group: int, unit_rows: int, expected: list[Any]
) -> None:
    path = write_vectors(tmp_path / "a.parquet", VECTORS[:rows], group=group)
    [table] = list_tables([str(path)], pytest.fail)
    pieces = list(cut_pieces(table, unit_rows))
    assert [(p.first_group, p.end_group, p.first_row, p.rows) for p in pieces] == expected
    assert {(p.uri, p.bytes) for p in pieces} <= {(str(path), path.stat().st_size)}


def test_unit_files_say_which_uris_are_not_new(tmp_path: Path) -> None:
    one = write_vectors(tmp_path / "1.parquet", VECTORS[:4], ["a", "b", "a", "c"], group=2)
    two = write_vectors(tmp_path / "2.parquet", VECTORS[:3], ["d", "c", "a"])
    tables = list_tables([str(one), str(two)], pytest.fail)
    repeats = find_repeats(tables, tmp_path / "scratch")
    assert write_units(tmp_path, "u", tables, repeats, unit_rows=2) == 3
    found = [read_unit(tmp_path / f"u/{i:06d}.parquet") for i in range(3)]
    assert [(piece.uri, piece.first_row, piece.rows) for piece, _ in found] == [
        (str(one), 0, 2), (str(one), 2, 2), (str(two), 0, 3),
    ]  # fmt: skip
    assert [more for _, more in found] == [
        {}, {2: f"row 0 of {one}"}, {1: f"row 3 of {one}", 2: f"row 0 of {one}"},
    ]  # fmt: skip


# --- vectors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", COMPONENTS)
@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
@pytest.mark.parametrize("kept", ["float32", "float16"])
def test_vectors_are_kept_as_they_are(tmp_path: Path, kind: str, given: str, kept: str) -> None:
    more = {"label": [f"l{i}" for i in range(50)], "bytes": list(range(50))}
    path = write_vectors(tmp_path / "a.parquet", VECTORS, kind=kind, dtype=given, group=20,
                         metadata=more)  # fmt: skip
    [done] = ingest(tmp_path, path, dtype=kept)
    expected = VECTORS.astype(given).astype(kept)
    assert np.array_equal(stored(tmp_path), expected.astype(np.float32))
    assert pq.read_schema(tmp_path / "embeddings/0.parquet").field("embedding").type == pa.list_(
        COMPONENTS[kept], DIM
    )
    digests = [hashlib.sha256(vector.tobytes()).digest() for vector in expected]
    size, version = expected[0].nbytes, path.stat().st_mtime_ns
    columns = ["id", "uri", "content_sha256", "width", "height", "format", "bytes", "label",
               "manifest_bytes"]  # fmt: skip
    assert [
        tuple(row.values()) for row in iter_rows(tmp_path / "embeddings/0.parquet", columns)
    ] == [
        (7 << 32 | i, f"a/{i}", digests[i], None, None, "vector", size, f"l{i}", i)
        for i in range(50)
    ]
    assert ledger(tmp_path) == [
        LedgerRow(f"a/{i}", "embedded", "", "", size, f"{version}+{i}", digests[i], 7 << 32 | i)
        for i in range(50)
    ]
    assert done["counts"]["embedded"] == done["counts"]["listed"] == done["shard"]["rows"] == 50
    assert done["ledger"] == file_record(tmp_path, "ledger/0.parquet").to_json()


FAULTS: list[tuple[str | None, list[float | None] | None]] = [
    ("good", [1, 2, 3, 4, 5, 6]),
    (None, [1, 2, 3, 4, 5, 6]),
    ("", [1, 2, 3, 4, 5, 6]),
    ("good", [1, 2, 3, 4, 5, 6]),
    ("null", None),
    ("short", [1, 2, 3]),
    ("empty", []),
    ("nan", [1, 2, float("nan"), 4, 5, 6]),
    ("inf", [float("-inf"), 2, 3, 4, 5, 6]),
    ("hole", [1, None, 3, 4, 5, 6]),
    ("zero", [0, 0, 0, -0.0, 0, 0]),
    ("large", [1, 2, 3, 4, 5, 1e39]),
    ("negative", [1, 2, 3, 4, 5, -6]),
    ("fine", [6, 5, 4, 3, 2, 1]),
]
REASONS = [
    ("embedded", "", ""),
    ("rejected", "null_uri", "row 1: its uri is null or empty"),
    ("rejected", "null_uri", "row 2: its uri is null or empty"),
    ("rejected", "duplicate_uri", "row 3: its uri is that of row 0 of {}, which counts"),
    ("rejected", "null_vector", "row 4: its embedding is null"),
    ("rejected", "wrong_dimension", "row 5: its embedding has 3 components, the store's have 6"),
    ("rejected", "wrong_dimension", "row 6: its embedding has 0 components, the store's have 6"),
    ("rejected", "not_finite", "row 7: component 2 is nan; all must be finite"),
    ("rejected", "not_finite", "row 8: component 0 is -inf; all must be finite"),
    ("rejected", "not_finite", "row 9: component 1 is nan; all must be finite"),
    ("rejected", "zero_vector", "row 10: all 6 components are 0, which {metric} forbids"),
    ("rejected", "not_finite",
     "row 11: component 5 is 1e+39, more than a float32 holds; all must be finite"),
    ("rejected", "negative", "row 12: component 5 is -6.0, and jaccard needs at least 0"),
    ("embedded", "", ""),
]  # fmt: skip


@pytest.mark.parametrize("batch", [1, 4, 8192])
@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2", "jaccard"])
def test_each_fault_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, batch: int
) -> None:
    monkeypatch.setattr(vector_units, "_BATCH", batch)
    uris = [uri for uri, _ in FAULTS]
    rows = pa.array([row for _, row in FAULTS], pa.list_(pa.float64()))
    path = write_vectors(tmp_path / "f.parquet", rows, uris, group=9)
    [done] = ingest(tmp_path, path, metric=metric)
    expected = [tuple(part.format(path, metric=metric) for part in reason) for reason in REASONS]
    for place, reason in ((10, "zero_vector"), (12, "negative")):
        assert expected[place][1] == reason
        if metric not in ("cosine", "jaccard") or (place == 12 and metric != "jaccard"):
            expected[place] = ("embedded", "", "")
    found = ledger(tmp_path)
    assert [(row.status, row.reason, row.detail) for row in found] == expected
    assert [row.uri for row in found] == [uri or f"{path}#row={i}" for i, uri in enumerate(uris)]
    good = [i for i, (status, _, _) in enumerate(expected) if status == "embedded"]
    ids = iter(range(7 << 32, (7 << 32) + len(good)))
    assert [row.id for row in found] == [next(ids) if i in good else None for i in range(14)]
    assert [row.content_sha256 is None for row in found] == [i not in good for i in range(14)]
    assert np.array_equal(stored(tmp_path), np.array([FAULTS[i][1] for i in good], np.float32))
    assert done["counts"]["embedded"] == done["shard"]["rows"] == len(good)
    reasons = [reason for _, reason, _ in expected if reason]
    assert done["counts"]["rejected_by_reason"] == {
        reason: reasons.count(reason) for reason in sorted(set(reasons))
    }


def test_what_float16_cannot_hold(tmp_path: Path) -> None:
    vectors = np.array([[1e5] * DIM, [1e-9] * DIM, [1.0] * DIM])
    ingest(tmp_path, write_vectors(tmp_path / "a.parquet", vectors), dtype="float16")
    assert [row.detail for row in ledger(tmp_path)] == [
        "row 0: component 0 is 100000.0, more than a float16 holds; all must be finite",
        "row 1: all 6 components are 0 as float16, which cosine forbids",
        "",
    ]


def test_nulls_in_a_column_of_fixed_size(tmp_path: Path) -> None:
    rows = pa.array([[1.0] * DIM, None, [2.0] * DIM], pa.list_(pa.float32(), DIM))
    ingest(tmp_path, write_vectors(tmp_path / "a.parquet", rows))
    assert [row.reason for row in ledger(tmp_path)] == ["", "null_vector", ""]
    assert stored(tmp_path)[:, 0].tolist() == [1, 2]


def test_a_table_of_another_dimension_has_no_shard(tmp_path: Path) -> None:
    [done] = ingest(tmp_path, write_vectors(tmp_path / "a.parquet", np.ones((3, 4))))
    assert done["shard"] is None
    assert not list((tmp_path / "embeddings").iterdir())
    assert done["counts"]["rejected_by_reason"] == {"wrong_dimension": 3}


def test_metadata_of_several_types_become_text(tmp_path: Path) -> None:
    for number, values in enumerate(([1, None], [0.5, 2.0], ["x", "y"], [[1], None])):
        write_vectors(tmp_path / f"in/{number}.parquet", VECTORS[:2], metadata={"m": values})
    write_vectors(tmp_path / "in/4.parquet", VECTORS[:2])
    ingest(tmp_path, tmp_path / "in")
    found = [[row["m"] for row in iter_rows(tmp_path / f"embeddings/{i}.parquet", ["m"])]
             for i in range(5)]  # fmt: skip
    assert found == [["1", None], ["0.5", "2"], ["x", "y"], ["[1]", None], [None, None]]


# --- damage -----------------------------------------------------------------------------------


def test_a_damaged_row_group_costs_no_other(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "a.parquet", VECTORS, group=20)
    chunk = pq.read_metadata(path).row_group(1).column(1)
    tables = list_tables([str(path)], pytest.fail)
    with open(path, "r+b") as file:
        file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
        file.write(bytes(30))
    assert tables[0].rows == 50
    [done] = ingest(tmp_path, path)
    assert done["counts"]["rejected_by_reason"] == {"unreadable": 20}
    rows = ledger(tmp_path)
    assert [row.uri for row in rows] == [
        f"{path}#row={i}" if 20 <= i < 40 else f"a/{i}" for i in range(50)
    ]
    assert rows[20].detail.startswith(f"{path}: row group 1: ")
    assert np.array_equal(stored(tmp_path), VECTORS[[*range(20), *range(40, 50)]])


def test_a_table_that_changed_since_it_was_listed(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "a.parquet", VECTORS)
    tables = list_tables([str(path)], pytest.fail)
    none = np.empty(0, np.int64)
    write_units(tmp_path, "units", tables, (none, none))
    unit = unit_of(0, "units/000000.parquet")
    write_vectors(path, VECTORS[:20])
    done = ingest_unit(unit, tmp_path, Rules(DIM, "cosine"), pa.schema([]), {})
    assert done["counts"]["rejected_by_reason"] == {"unreadable": 50}
    assert f"{path}: it changed since it was listed (" in ledger(tmp_path)[0].detail
    path.unlink()
    done = ingest_unit(unit, tmp_path, Rules(DIM, "cosine"), pa.schema([]), {})
    assert {row.detail for row in ledger(tmp_path)} == {f"{path}: No such file or directory"}


def test_a_large_row_group_is_read_in_bounded_memory(tmp_path: Path) -> None:
    vectors = np.ones((100_000, 100), np.float32)  # 40 MB
    path = write_vectors(tmp_path / "a.parquet", vectors)
    [table] = list_tables([str(path)], pytest.fail)
    [piece] = cut_pieces(table)
    assert piece.rows == 100_000
    before, most = pa.total_allocated_bytes(), 0
    for rows in vector_units._batches(piece):
        assert rows.size <= 8192
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 20 << 20
