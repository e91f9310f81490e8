from __future__ import annotations

import numpy as np
import pytest

from lookalike.errors import RequestError
from lookalike.store.objects import open_store
from lookalike.store.tombstones import read_tombstones, write_tombstones

GOLDEN = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }"
    + b" " * 60
    + b"\n\x03\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x05\x00\x00\x00"
)


def test_the_format_stays_readable(tmp_path):
    (tmp_path / "golden.npy").write_bytes(GOLDEN)
    assert read_tombstones([tmp_path / "golden.npy"]).tolist() == [3, (5 << 32) + 7]
    record = write_tombstones(open_store(tmp_path), "own.npy", [(5 << 32) + 7, 3])
    assert (tmp_path / record.path).read_bytes() == GOLDEN


def test_ids_come_back_ascending_and_once(tmp_path):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2**62, 100) for _ in range(2)]
    names = [
        write_tombstones(open_store(tmp_path), f"{i}.npy", np.repeat(part, 2)).path
        for i, part in enumerate([*parts, parts[0]])
    ]
    found = read_tombstones(tmp_path / name for name in names)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.unique(np.concatenate(parts)))
    assert read_tombstones([]).shape == (0,)
    write_tombstones(open_store(tmp_path), "none.npy", [])
    assert read_tombstones([tmp_path / "none.npy"]).shape == (0,)


def test_negative_ids_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="got -1"):
        write_tombstones(open_store(tmp_path), "x.npy", [3, -1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "ids",
    [
        np.array([3, 2]),
        np.array([2, 2]),
        np.array([-1, 2]),
        np.array([1.0]),
        np.array([[1]]),
        np.array(["a"]),
        np.array([{}]),
    ],
)
def test_other_arrays_are_refused(ids, tmp_path):
    np.save(tmp_path / "x.npy", ids)
    with pytest.raises(RequestError, match=r"x\.npy: not .*tombstones"):
        read_tombstones([tmp_path / "x.npy"])


@pytest.mark.parametrize("data", [b"", b"junk", GOLDEN[:100], GOLDEN[:-1]])
def test_damaged_and_missing_files_are_named(data, tmp_path):
    with pytest.raises(RequestError, match=r"x\.npy: not readable as tombstones"):
        read_tombstones([tmp_path / "x.npy"])
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(RequestError, match=r"x\.npy: not readable as tombstones"):
        read_tombstones([tmp_path / "x.npy"])
