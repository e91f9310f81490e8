from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.store import duplicates
from lookalike.store.duplicates import SCHEMA, DuplicateReader, cuts, write_duplicates
from lookalike.store.objects import open_store
from tests.vector_stores import pairs

NAMES = st.dictionaries(st.integers(0, 2**62), st.lists(st.text(max_size=5), min_size=1))


@given(NAMES, st.lists(st.integers(0, 2**62)), st.integers(1, 4))
def test_what_was_written_is_found_by_id(
    names: dict[int, list[str]], others: list[int], blocks: int
) -> None:
    cut = np.array_split(np.array(sorted(names), np.int64), blocks)
    with TemporaryDirectory() as folder:
        store, paths, total = open_store(folder), [], 0
        for number, block in enumerate(cut):
            some = pairs((i, names[i]) for i in block[::-1].tolist())
            record, rows = write_duplicates(store, f"a/{number}.parquet", some)
            paths.append(record.path)
            total += rows
        assert total == len(names)
        reader = DuplicateReader(store, paths)
        ids = np.unique(np.array([*list(names)[::2], *others], np.int64))
        expected = {i: tuple(sorted(names[i])) for i in ids.tolist() if i in names}
        assert reader.of(ids) == expected


def test_only_row_groups_that_may_hold_an_id_are_read(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    table = pa.table({"id": range(100), "uris": [[f"/{i}"] for i in range(100)]}, SCHEMA)
    pq.write_table(table, path, row_group_size=10, compression="none")
    data = path.read_bytes()
    # Damage to another group than the one asked for goes unnoticed.
    first = pq.read_metadata(path).row_group(0).column(0)
    end = first.data_page_offset + 20
    path.write_bytes(data[:4] + b"\xff" * (end - 4) + data[end:])
    assert DuplicateReader(open_store(path.parent), [path.name]).of(np.array([55, 200])) == {
        55: ("/55",)
    }


def test_a_group_is_read_once(tmp_path: Path) -> None:
    names = {i << 20: [f"/{i}/{n}" for n in range(1 + i % 3)] for i in range(3000)}
    record, _ = write_duplicates(open_store(tmp_path), "d.parquet", pairs(names.items()))
    reader = DuplicateReader(open_store(tmp_path), [record.path])
    ids = np.array([5 << 20, (5 << 20) + 1, 1500 << 20, 2999 << 20])
    expected = {i: tuple(names[i]) for i in ids.tolist() if i in names}
    assert reader.of(ids) == expected
    (tmp_path / record.path).unlink()
    assert reader.of(ids) == expected
    assert reader.of(ids[1:2]) == {}
    assert reader.of(np.array([7 << 20])) == {7 << 20: tuple(names[7 << 20])}


def test_files_without_statistics_are_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    table = pa.table({"id": [3, 9], "uris": [["/b", "/a"], ["/c"]]}, SCHEMA)
    pq.write_table(table, path, write_statistics=False)
    assert DuplicateReader(open_store(path.parent), [path.name]).of(np.array([3])) == {
        3: ("/a", "/b")
    }
    assert DuplicateReader(open_store(tmp_path), []).of(np.array([3])) == {}


@given(
    st.lists(st.integers(0, 10**6), unique=True).map(sorted), st.integers(0, 50), st.integers(1, 9)
)
def test_files_of_duplicates_have_about_as_many_shards(
    files: list[int], names: int, most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_PART_ROWS", most)
        found = cuts(files, names)
    assert list(found) == sorted(set(found))
    assert len(found) + 1 == max(1, min(len(files), -(-names // most)))
    sizes = np.bincount(np.searchsorted(found, files, side="right"), minlength=1)
    assert sizes.max() - sizes.min() <= 1
