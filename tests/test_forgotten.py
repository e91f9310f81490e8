"""Contents that must not come back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.store.forgotten import Forgotten, forgotten_row, write_forgotten
from lookalike.store.objects import open_store
from tests.file_records import file_record

# Hashes that end in zero bytes, or begin with large ones, are the ones that types get wrong.
DIGESTS = st.one_of(
    st.integers(0, 30).map(lambda i: hashlib.sha256(b"%d" % i).digest()),
    st.sampled_from([bytes(32), b"\xff" * 32, b"\x80" + bytes(31)]),
)


@given(first=st.lists(DIGESTS, max_size=20), then=st.lists(DIGESTS, max_size=20))
def test_it_is_the_set_of_all_that_was_written(
    tmp_path_factory: pytest.TempPathFactory, first: list[bytes], then: list[bytes]
) -> None:
    store = tmp_path_factory.mktemp("store")
    record = write_forgotten(open_store(store), "snapshots/a/forgotten.npy", first)
    assert record == file_record(store, "snapshots/a/forgotten.npy")
    before = Forgotten.load([store / "snapshots/a/forgotten.npy"])
    write_forgotten(open_store(store), "b.npy", then, before)
    both = Forgotten.load([store / "b.npy"])
    asked = [*(hashlib.sha256(b"%d" % i).digest() for i in range(31)), bytes(32), b"\xff" * 32]
    for forgotten, digests in ((before, {*first}), (both, {*first, *then})):
        assert [one in forgotten for one in asked] == [one in digests for one in asked]
        assert len(forgotten) == len(digests)
    write_forgotten(open_store(store), "c.npy", then)
    parts = Forgotten.load([store / "snapshots/a/forgotten.npy", store / "c.npy"])
    assert np.array_equal(parts.items, both.items)


def test_no_hash_of_a_content_is_in_the_file(tmp_path: Path) -> None:
    digests = [hashlib.sha256(b"%d" % i).digest() for i in range(50)]
    write_forgotten(open_store(tmp_path), "a.npy", digests)
    data = (tmp_path / "a.npy").read_bytes()
    assert not any(digest in data for digest in digests)
    assert all(hashlib.sha256(digest).digest() in data for digest in digests)


def test_nothing_is_forgotten_at_first() -> None:
    assert len(Forgotten()) == len(Forgotten.load([])) == 0
    assert bytes(32) not in Forgotten()


def test_the_row_tells_neither_name_nor_hash() -> None:
    digest = hashlib.sha256(b"content").digest()
    row = forgotten_row("/pictures/me.jpg", digest)
    name = hashlib.sha256(digest + b"/pictures/me.jpg").hexdigest()[:16]
    assert row.uri == f"forgotten:{name}"
    assert (row.status, row.reason, row.detail) == ("ignored", "forgotten", "")
    assert (row.bytes, row.version, row.content_sha256, row.id) == (-1, "", None, None)
    assert forgotten_row("/pictures/you.jpg", digest).uri != row.uri


@pytest.mark.parametrize("bad", ["text", "type", "shape", "objects"])
def test_another_file_is_refused(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "a.npy"
    if bad == "text":
        path.write_text("forgotten")
    else:
        wrong = {
            "type": np.zeros((2, 32)),
            "shape": np.zeros((2, 31), np.uint8),
            "objects": np.array([{}]),
        }[bad]
        np.save(path, wrong, allow_pickle=True)
    with pytest.raises(RequestError, match=r"a\.npy: not "):
        Forgotten.load([path])
