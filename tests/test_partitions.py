from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.store import partitions
from lookalike.store.partitions import Spill, partition_count, uri_hashes, uri_partitions

SCHEMA = pa.schema([("uri", pa.string()), ("n", pa.int64())])
NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=50)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(names=NAMES, cut=st.integers(0, 50), bits=st.integers(0, 12))
def test_names_fall_to_parts_by_the_leading_bits_of_their_crc(
    names: list[str], cut: int, bits: int
) -> None:
    column = pa.chunked_array([names[:cut], names[cut:]], pa.string())
    hashes = [zlib.crc32(name.encode()) for name in names]
    assert uri_hashes(column).tolist() == hashes
    assert uri_hashes(column).dtype == np.uint32
    expected = [value * 2**bits >> 32 for value in hashes]
    assert uri_partitions(column, 2**bits).tolist() == expected
    assert uri_partitions(column.combine_chunks(), 2**bits).tolist() == expected
    # twice as many parts are each a half of one
    assert [part // 2 for part in uri_partitions(column, 2 ** (bits + 1)).tolist()] == expected


@pytest.mark.parametrize(
    ("rows", "size", "count"),
    [(0, 0, 1), (2**19, 0, 1), (2**19 + 1, 0, 2), (3 * 2**19, 0, 4), (10**8, 0, 256),
     (5, 2**28, 1), (5, 2**28 + 1, 2), (2**21, 2**33, 32)],
)  # fmt: skip
def test_partitions_are_a_power_of_two_and_fit_memory(rows: int, size: int, count: int) -> None:
    assert partition_count(rows, size) == count


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    blocks=st.lists(st.lists(st.integers(0, 9), max_size=20), max_size=8),
    count=st.integers(10, 12), buffer=st.sampled_from([1, 300, 10**6]), early=st.booleans(),
)  # fmt: skip
def test_rows_come_out_where_they_were_sent_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    blocks: list[list[int]],
    count: int,
    buffer: int,
    early: bool,
) -> None:
    folder = tmp_path_factory.mktemp("spill") / "a"
    folder.mkdir()
    (folder / "00000.arrow").write_bytes(b"left by a run that was killed")
    sent: dict[int, list[dict[str, object]]] = {}
    with pytest.MonkeyPatch.context() as patch, Spill(folder, count, SCHEMA) as spill:
        patch.setattr(partitions, "_BUFFER_BYTES", buffer)
        for number, block in enumerate(blocks):
            rows = [{"uri": f"{number}-{i}" if i % 3 else None, "n": i} for i in range(len(block))]
            for row, which in zip(rows, block, strict=True):
                sent.setdefault(which, []).append(row)
            # another order of the columns, another whole-number type
            table = pa.Table.from_pylist(rows, SCHEMA).select(["n", "uri"])
            spill.write(table, np.array(block, dtype=np.uint64))
        if early:
            spill.flush()
            assert spill.read(3).to_pylist() == sent.get(3, [])
    assert {i: spill.read(i).to_pylist() for i in range(count)} == {
        i: sent.get(i, []) for i in range(count)
    }
    assert all(spill.read(i).schema == SCHEMA for i in range(count))
    assert {i for i in range(count) if spill.path(i) is not None} == set(sent)
    assert sorted(path.name for path in folder.iterdir()) == [f"{i:05d}.arrow" for i in
                                                              sorted(sent)]  # fmt: skip


def test_a_spill_holds_some_bytes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_BUFFER_BYTES", 1 << 20)
    numbers = np.arange(10_000)
    table = pa.table({"n": numbers})
    with Spill(tmp_path / "s", 1000, pa.schema([("n", pa.int64())])) as spill:
        for _ in range(100):
            spill.write(table, numbers % 1000)
            held = sum(one.nbytes for one in spill._tables)
            assert held < (1 << 20) + table.nbytes
        assert (tmp_path / "s").exists()
    assert [spill.read(i).num_rows for i in range(1000)] == [1000] * 1000


def test_what_failed_leaves_what_was_written_before(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"uri": "a", "n": 1}], SCHEMA)
    spill = Spill(tmp_path / "s", 2, SCHEMA)

    def fail() -> None:
        with spill:
            spill.write(table, np.array([0]))
            spill.flush()
            spill.write(table, np.array([1]))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert spill.read(0).equals(table)
    assert spill.path(1) is None


@pytest.mark.parametrize(
    ("which", "words"),
    [([2], "from 0 to 1, got numbers from 2 to 2"), ([-1], "from -1 to -1"),
     ([0, 1], "1 rows, 2 numbers")],
)  # fmt: skip
def test_rows_must_have_a_file(tmp_path: Path, which: list[int], words: str) -> None:
    table = pa.Table.from_pylist([{"uri": "a", "n": 1}], SCHEMA)
    with pytest.raises(ValueError, match=words), Spill(tmp_path / "s", 2, SCHEMA) as spill:
        spill.write(table, np.array(which))
