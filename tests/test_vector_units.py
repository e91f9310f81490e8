from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.records import Unit
from lookalike.sources import vector_pieces, vector_rows
from lookalike.sources.listing import Listing
from lookalike.sources.units import Units
from lookalike.sources.vector_pieces import Piece, cut_pieces, piece_of
from lookalike.sources.vector_tables import VectorTable, list_tables, metadata_schema
from lookalike.store.durable import read_json
from lookalike.store.forgotten import Forgotten, forgotten_row, write_forgotten
from lookalike.store.ledger import LedgerRow, metadata_hash, read_ledger
from lookalike.store.objects import open_store
from lookalike.store.shards import iter_blocks, iter_rows
from lookalike.vector_faults import Rules
from lookalike.vector_units import ingest_unit
from tests.file_records import file_record
from tests.scanning import cut_vectors, list_vectors
from tests.vector_files import COMPONENTS, embedding, write_vectors

DIM = 6
VECTORS = np.random.default_rng(0).standard_normal((50, DIM)).astype(np.float32)


def unit_of(number: int) -> Unit:
    return Unit(
        number, 7 + number, f"embeddings/{number}", f"ledger/{number}", f"done/{number}.json"
    )


def ingest(
    store: Path,
    *paths: Path,
    unit_rows: int = 65_536,
    metric: str = "cosine",
    dtype: str = "float32",
) -> list[dict[str, Any]]:
    """The records of all units."""
    tables = list_tables([str(path) for path in paths], pytest.fail)
    units = cut(store, tables, unit_rows, np.dtype(dtype).itemsize * DIM)
    rules, metadata = Rules(DIM, metric, dtype), metadata_schema(tables)
    return [
        ingest_unit(
            unit_of(number), open_store(store), units, rules, metadata, {"lookalike.x": "y"}
        )
        for number in range(len(units))
    ]


def cut(
    store: Path, tables: Sequence[VectorTable], unit_rows: int = 65_536, size: int = 4 * DIM
) -> Units:
    """The units of a first run."""
    listing, _ = list_vectors(open_store(store), "listing", tables, size)
    return cut_vectors(open_store(store), listing, "units", tables, unit_rows)


def read_units(store: Path, units: Units) -> list[tuple[Piece, pa.Table]]:
    """What each is to be read of, and its rows."""
    place = open_store(store)
    return [(piece_of(place, units, i), units.table(place, i)) for i in range(len(units))]


def ledger(store: Path, number: int = 0) -> list[LedgerRow]:
    return list(read_ledger(written(store, "ledger", number)))


def written(store: Path, name: str, number: int = 0) -> Path:
    """The path of a unit's ledger or shard, as its record has it."""
    return store / str(read_json(store / f"done/{number}.json")[name]["path"])


def stored(store: Path, number: int = 0) -> npt.NDArray[np.float32]:
    return np.concatenate([block for _, block in iter_blocks(written(store, "shard", number))])


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


@pytest.mark.parametrize("in_memory", [True, False])
def test_units_hold_the_candidates_of_their_rows_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    monkeypatch.setattr(vector_pieces, "_PART_ROWS", 1 << 20 if in_memory else 7)
    paths = [tmp_path / f"{i}.parquet" for i in range(3)]
    for path, rows in zip(paths, (20, 1, 29), strict=True):
        write_vectors(path, VECTORS[:rows], group=3)
    tables = list_tables([str(path) for path in paths], pytest.fail)
    listing, _ = list_vectors(open_store(tmp_path), "listing", tables, 24)
    rows = pa.concat_tables([pq.read_table(tmp_path / part) for part in listing.parts])
    chosen = np.random.default_rng(1).permutation(50)[:25]
    more = pa.array(chosen).cast(pa.string())  # as the comparison adds columns
    candidates = rows.take(pa.array(chosen)).append_column("_was", more)
    for part in range(2):
        pq.write_table(candidates.slice(part * 12, 12 + part), tmp_path / f"{part}.candidates")
    listed = Listing(("0.candidates", "1.candidates"), 25, 1000)
    found = cut_vectors(open_store(tmp_path), listed, "u", tables, 6)
    units = read_units(tmp_path, found)
    assert found.parts == (1 if in_memory else 4)
    wanted = []  # from the definition
    for start, table in zip((0, 20, 21), tables, strict=True):
        for piece in cut_pieces(table, 6):
            own = range(start + piece.first_row, start + piece.first_row + piece.rows)
            if here := sorted(set(own) & set(chosen.tolist())):
                wanted.append((piece, [str(i) for i in here]))
    assert [(piece, rows["_was"].to_pylist()) for piece, rows in units] == wanted


# --- vectors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", COMPONENTS)
@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
@pytest.mark.parametrize("kept", ["float32", "float16"])
def test_vectors_are_kept_as_they_are(tmp_path: Path, kind: str, given: str, kept: str) -> None:
    more = {"label": [f"l{i}" for i in range(50)], "bytes": list(range(50))}
    path = write_vectors(
        tmp_path / "a.parquet", VECTORS, kind=kind, dtype=given, group=20, metadata=more
    )
    [done] = ingest(tmp_path, path, dtype=kept)
    expected = VECTORS.astype(given).astype(kept)
    assert np.array_equal(stored(tmp_path), expected.astype(np.float32))
    assert pq.read_schema(written(tmp_path, "shard")).field("embedding").type == pa.list_(
        COMPONENTS[kept], DIM
    )
    digests = [hashlib.sha256(vector.tobytes()).digest() for vector in expected]
    size, version = expected[0].nbytes, path.stat().st_mtime_ns
    columns = [
        "id",
        "uri",
        "content_sha256",
        "width",
        "height",
        "format",
        "bytes",
        "label",
        "manifest_bytes",
    ]
    assert [tuple(row.values()) for row in iter_rows(written(tmp_path, "shard"), columns)] == [
        (7 << 32 | i, f"a/{i}", digests[i], None, None, "vector", size, f"l{i}", i)
        for i in range(50)
    ]
    assert ledger(tmp_path) == [
        LedgerRow(
            f"a/{i}",
            "embedded",
            "",
            "",
            size,
            f"{version}+{i}",
            digests[i],
            7 << 32 | i,
            metadata_hash({"label": f"l{i}", "manifest_bytes": i}),
        )
        for i in range(50)
    ]
    assert done["counts"]["embedded"] == done["counts"]["listed"] == done["shard"]["rows"] == 50
    assert done["ledger"] == file_record(tmp_path, done["ledger"]["path"]).to_json()


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
    ("rejected", "duplicate_uri", "row 3: its uri is that of an earlier row, which counts: good"),
    ("rejected", "null_vector", "row 4: its embedding is null"),
    ("rejected", "wrong_dimension", "row 5: its embedding has 3 components, the store's have 6"),
    ("rejected", "wrong_dimension", "row 6: its embedding has 0 components, the store's have 6"),
    ("rejected", "not_finite", "row 7: component 2 is nan; all must be finite"),
    ("rejected", "not_finite", "row 8: component 0 is -inf; all must be finite"),
    ("rejected", "not_finite", "row 9: component 1 is nan; all must be finite"),
    ("rejected", "zero_vector", "row 10: all 6 components are 0, which {metric} forbids"),
    (
        "rejected",
        "not_finite",
        "row 11: component 5 is 1e+39, more than a float32 holds; all must be finite",
    ),
    ("rejected", "negative", "row 12: component 5 is -6.0, and jaccard needs at least 0"),
    ("embedded", "", ""),
]


@pytest.mark.parametrize("batch", [1, 4, 8192])
@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2", "jaccard"])
def test_each_fault_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, batch: int
) -> None:
    monkeypatch.setattr(vector_rows, "_BATCH", batch)
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
    assert [row.uri for row in found] == [
        f"{path}#row={i}" if i in (1, 2, 3) else uri for i, uri in enumerate(uris)
    ]
    assert {row.bytes for row in found} == {4 * DIM}
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


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2", "jaccard"])
def test_vectors_whose_squares_overflow(tmp_path: Path, metric: str) -> None:
    """L2 and inner products take none that are beyond 1e15."""
    rows = [[1e20, 0, 0, 0, 0, 0], [9e14, 0, 0, 0, 0, 0], [9e14] * 6, [3e38] * 6]
    path = write_vectors(
        tmp_path / "f.parquet", pa.array(rows, pa.list_(pa.float32())), list("abcd")
    )
    [done] = ingest(tmp_path, path, metric=metric)
    short = metric in ("cosine", "jaccard")
    found = {row.uri: (row.reason, row.detail) for row in ledger(tmp_path)}
    assert [found[uri][0] for uri in "abcd"] == (
        [""] * 4 if short else ["too_long", "", "too_long", "too_long"]
    )
    assert done["counts"]["embedded"] == (4 if short else 1)
    if not short:
        assert found["a"][1] == (
            f"row 0: its length is 1e+20, {metric} takes at most 1e+15, beyond which its squares "
            "do not fit into float32; divide all vectors by one number, or use the metric cosine"
        )


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
    found = [
        [row["m"] for row in iter_rows(written(tmp_path, "shard", i), ["m"])] for i in range(5)
    ]
    assert found == [["1", None], ["0.5", "2"], ["x", "y"], ["[1]", None], [None, None]]


# --- rows that were read before ---------------------------------------------------------------


def again(
    store: Path, path: Path, before: Sequence[LedgerRow], forgotten: Forgotten | None = None
) -> tuple[dict[str, Any], list[LedgerRow]]:
    """Ingest a table as one unit whose rows the ledger had before, or had not."""
    tables = list_tables([str(path)], pytest.fail)
    listing, _ = list_vectors(open_store(store), "again-listing", tables, 4 * DIM)
    rows = pq.read_table(store / listing.parts[0])
    had = {row.uri: row for row in before}
    was = [had.get(uri) for uri in rows["uri"].to_pylist()]
    columns = {
        "_was_sha256": pa.array([row and row.content_sha256 for row in was], pa.binary(32)),
        "_was_id": pa.array([row and row.id for row in was], pa.int64()),
        "_was_metadata_hash": pa.array([row and row.metadata_hash for row in was], pa.int64()),
    }
    for name, column in columns.items():
        rows = rows.append_column(name, column)
    pq.write_table(rows, store / "c.parquet")
    candidates = Listing(("c.parquet",), rows.num_rows, rows.nbytes)
    units = cut_vectors(open_store(store), candidates, "again", tables)
    assert len(units) == 1
    unit = replace(
        unit_of(0), file_no=99, shard="embeddings/1", ledger="ledger/1", done="done/1.json"
    )
    rules, metadata = Rules(DIM, "cosine"), metadata_schema(tables)
    done = ingest_unit(unit, open_store(store), units, rules, metadata, {}, forgotten)
    return done, ledger(store, 1)


def test_a_row_that_is_as_it_was_keeps_its_place(tmp_path: Path) -> None:
    labels = {"label": [f"l{i}" for i in range(50)]}
    path = write_vectors(tmp_path / "a.parquet", VECTORS, metadata=labels)
    ingest(tmp_path, path)
    before = ledger(tmp_path)
    vectors, uris = VECTORS.copy(), [f"a/{i}" for i in range(50)]
    vectors[10] *= 2  # another vector
    labels["label"][20] = "other"  # other metadata
    uris[30] = "renamed"
    vectors[40] = np.nan  # damaged now
    order = np.random.default_rng(3).permutation(50)
    write_vectors(
        path,
        vectors[order],
        [uris[i] for i in order],
        metadata={"label": [labels["label"][i] for i in order]},
    )
    done, rows = again(tmp_path, path, before)
    assert {name: done["counts"][name] for name in ("embedded", "unchanged", "rejected")} == {
        "embedded": 3,
        "unchanged": 46,
        "rejected": 1,
    }
    version = path.stat().st_mtime_ns
    new = [i for i in order if i in (10, 20, 30)]
    for place, (i, row) in enumerate(zip(order.tolist(), rows, strict=True)):
        assert (row.uri, row.version) == (uris[i], f"{version}+{place}")
        if i == 40:
            assert (row.status, row.reason, row.id) == ("rejected", "not_finite", None)
        elif i in new:
            assert (row.status, row.id) == ("embedded", 99 << 32 | new.index(i))
        else:
            assert replace(row, status="embedded", version="") == replace(before[i], version="")
            assert row.status == "unchanged"
    assert np.array_equal(stored(tmp_path, 1), vectors[new])
    kept = [
        tuple(row.values()) for row in iter_rows(written(tmp_path, "shard", 1), ["uri", "label"])
    ]
    assert kept == [(uris[i], labels["label"][i]) for i in new]


def test_where_nothing_is_new_there_is_no_shard(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "a.parquet", VECTORS)
    ingest(tmp_path, path)
    done, rows = again(tmp_path, path, ledger(tmp_path))
    assert done["shard"] is None
    assert done["counts"]["unchanged"] == done["counts"]["listed"] == 50
    assert [row.id for row in rows] == [row.id for row in ledger(tmp_path)]


def test_a_vector_that_is_forgotten_does_not_come_back(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "a.parquet", VECTORS)
    digests = [hashlib.sha256(vector.tobytes()).digest() for vector in VECTORS]
    write_forgotten(open_store(tmp_path), "forgotten.npy", [digests[7], digests[9]])
    forgotten = Forgotten.load([tmp_path / "forgotten.npy"])
    ingest(tmp_path, path)
    before = [row for row in ledger(tmp_path) if row.uri not in ("a/7", "a/9", "a/11")]
    done, rows = again(tmp_path, path, before, forgotten)
    assert {name: done["counts"][name] for name in ("embedded", "unchanged", "ignored")} == {
        "embedded": 1,
        "unchanged": 47,
        "ignored": 2,
    }
    assert [rows[7], rows[9]] == [
        forgotten_row("a/7", digests[7]),
        forgotten_row("a/9", digests[9]),
    ]
    assert np.array_equal(stored(tmp_path, 1), VECTORS[[11]])
    data = b"".join(
        file.read_bytes()
        for file in (written(tmp_path, "ledger", 1), written(tmp_path, "shard", 1))
    )
    assert VECTORS[7].tobytes() not in data


def test_a_row_group_without_candidates_is_not_read(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "a.parquet", VECTORS, group=10)
    tables = list_tables([str(path)], pytest.fail)
    listing, _ = list_vectors(open_store(tmp_path), "listing", tables, 4 * DIM)
    rows = pq.read_table(tmp_path / listing.parts[0]).take([3, 31, 35, 39])
    pq.write_table(rows, tmp_path / "c.parquet")
    some = Listing(("c.parquet",), 4, 100)
    units = cut_vectors(open_store(tmp_path), some, "units", tables)
    [(_, listed)] = read_units(tmp_path, units)
    assert listed.num_rows == 4
    info = path.stat()
    with open(path, "r+b") as file:  # what is damaged does not matter where it is not read
        for group in (1, 2, 4):
            chunk = pq.read_metadata(path).row_group(group).column(1)
            file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
            file.write(bytes(30))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    ingest_unit(unit_of(0), open_store(tmp_path), units, Rules(DIM, "cosine"), pa.schema([]), {})
    assert [(row.uri, row.status) for row in ledger(tmp_path)] == [
        (f"a/{i}", "embedded") for i in (3, 31, 35, 39)
    ]
    assert np.array_equal(stored(tmp_path), VECTORS[[3, 31, 35, 39]])


def test_another_table_behind_the_same_size_and_time_is_not_taken_for_the_one_listed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.parquet"

    def write(first: int) -> None:
        uris = [f"{i:02d}" for i in range(first, first + 50)]
        table = pa.table({"uri": uris, "embedding": embedding(VECTORS)})
        pq.write_table(table, path, compression="none", use_dictionary=False)

    write(0)
    info = path.stat()
    units, unit = cut(tmp_path, list_tables([str(path)], pytest.fail)), unit_of(0)
    write(50)
    assert path.stat().st_size == info.st_size
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    done = ingest_unit(unit, open_store(tmp_path), units, Rules(DIM, "cosine"), pa.schema([]), {})
    assert done["counts"]["rejected_by_reason"] == {"unreadable": 50}
    assert "it changed since it was listed" in ledger(tmp_path)[0].detail


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
    assert [row.uri for row in rows] == [f"a/{i}" for i in range(50)]
    assert [row.reason for row in rows] == ["unreadable" if 20 <= i < 40 else "" for i in range(50)]
    assert rows[20].detail.startswith(f"{path}: row group 1: ")
    assert np.array_equal(stored(tmp_path), VECTORS[[*range(20), *range(40, 50)]])


def test_a_table_that_changed_since_it_was_listed(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "a.parquet", VECTORS)
    tables = list_tables([str(path)], pytest.fail)
    units, unit = cut(tmp_path, tables), unit_of(0)
    write_vectors(path, VECTORS[:20])
    done = ingest_unit(unit, open_store(tmp_path), units, Rules(DIM, "cosine"), pa.schema([]), {})
    assert done["counts"]["rejected_by_reason"] == {"unreadable": 50}
    assert f"{path}: it changed since it was listed (" in ledger(tmp_path)[0].detail
    path.unlink()
    (tmp_path / unit.done).unlink()
    done = ingest_unit(unit, open_store(tmp_path), units, Rules(DIM, "cosine"), pa.schema([]), {})
    assert {row.detail for row in ledger(tmp_path)} == {f"{path}: No such file or directory"}


def test_a_large_row_group_is_read_in_bounded_memory(tmp_path: Path) -> None:
    vectors = np.ones((100_000, 100), np.float32)  # 40 MB
    path = write_vectors(tmp_path / "a.parquet", vectors)
    [table] = list_tables([str(path)], pytest.fail)
    [(piece, listed)] = read_units(tmp_path, cut(tmp_path, [table]))
    assert piece.rows == listed.num_rows == 100_000
    before, most = pa.total_allocated_bytes(), 0
    for rows in vector_rows.read_rows(piece, listed):
        assert rows.listed.num_rows <= 8192
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 20 << 20
