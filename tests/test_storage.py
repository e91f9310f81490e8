from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.store import durable, storage
from lookalike.store.files import FileRecord
from tests.file_records import file_record

SEGMENT = st.binary(min_size=1, max_size=40).filter(
    lambda name: not {0, ord("/")} & set(name) and name not in (b".", b"..")
)


# --- names ------------------------------------------------------------------------------------


@given(st.lists(SEGMENT, min_size=1, max_size=4))
def test_every_absolute_path_survives_as_a_storable_string(segments: list[bytes]) -> None:
    path = b"/" + b"/".join(segments)
    uri = storage.uri_from_path(path)
    uri.encode("utf-8")  # storable: no lone surrogates
    assert storage.path_from_uri(uri) == path
    assert not storage.is_remote(uri)


@given(SEGMENT, SEGMENT)
def test_different_paths_have_different_names(one: bytes, other: bytes) -> None:
    names = storage.uri_from_path(b"/" + one), storage.uri_from_path(b"/" + other)
    assert (names[0] == names[1]) == (one == other)


def test_utf8_paths_stand_for_themselves() -> None:
    for text in ("/a b/%41%/é.jpg", "/file:x", "/file:///x", "/s3://bucket/x", "/a\nb"):
        assert storage.uri_from_path(text.encode()) == text
        assert storage.path_from_uri(text) == text.encode()


def test_other_paths_are_percent_encoded() -> None:
    assert storage.uri_from_path(b"/a b/50%\xff.jpg") == "file:///a b/50%25%FF.jpg"


def test_file_uris_of_others_are_understood() -> None:
    assert storage.path_from_uri("file:///a%20b/%C3%A9.jpg") == "/a b/é.jpg".encode()
    assert storage.path_from_uri("file://localhost/a") == b"/a"
    # what argv gives for a name that is not UTF-8
    assert storage.path_from_uri("/caf\udce9.jpg") == b"/caf\xe9.jpg"


@pytest.mark.parametrize(
    ("uri", "remote"),
    [
        ("s3://bucket/x", True),
        ("gs://bucket", True),
        ("hdfs://host:8020/x", True),
        ("file:///x", False),
        ("/s3://x", False),
        ("C:\\x", False),
        ("file:x", False),
        ("x", False),
    ],
)
def test_is_remote(uri: str, remote: bool) -> None:
    assert storage.is_remote(uri) is remote


# --- files of the store -----------------------------------------------------------------------


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_record_is_the_hash_of_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    store = tmp_path_factory.mktemp("store")
    with durable.write_file(store, "a/b.bin") as pending:
        assert [pending.write(piece) for piece in pieces] == [len(piece) for piece in pieces]
    data = b"".join(pieces)
    assert (store / "a/b.bin").read_bytes() == data
    expected = FileRecord("a/b.bin", hashlib.sha256(data).hexdigest(), len(data))
    assert pending.finished == expected == file_record(store, "a/b.bin")


def test_parquet_is_hashed_while_written(tmp_path: Path) -> None:
    with durable.write_file(tmp_path, "t.parquet") as pending:
        pq.write_table(pa.table({"x": list(range(1000))}), pending.file)
    assert file_record(tmp_path, "t.parquet") == pending.finished
    assert pq.ParquetFile(tmp_path / "t.parquet").read()["x"].to_pylist() == list(range(1000))


def fail_halfway(store: Path, name: str) -> None:
    with durable.write_file(store, name) as pending:
        pending.write(b"half")
        raise KeyboardInterrupt


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail_halfway(tmp_path, "sub/x")
    assert files_below(tmp_path) == []


def test_an_exception_leaves_the_old_file(tmp_path: Path) -> None:
    durable.write_bytes(tmp_path, "x", b"old")
    with pytest.raises(KeyboardInterrupt):
        fail_halfway(tmp_path, "x")
    assert files_below(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_the_final_name_appears_whole(tmp_path: Path) -> None:
    with durable.write_file(tmp_path, "x") as pending:
        pending.write(b"first half,")
        assert not (tmp_path / "x").exists()
        assert not list(tmp_path.glob("x*"))  # nor would a reader's glob find the temporary name
        pending.write(b"second half")
    assert (tmp_path / "x").read_bytes() == b"first half,second half"


def test_a_reader_never_sees_a_mixture(tmp_path: Path) -> None:
    contents = [bytes([i]) * 100_000 for i in range(40)]
    durable.write_bytes(tmp_path, "x", contents[0])
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add((tmp_path / "x").read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for data in contents:
            durable.write_bytes(tmp_path, "x", data)
    finally:
        stop.set()
        reader.join()
    assert seen <= set(contents)
    assert files_below(tmp_path) == ["x"]


def test_a_failed_rename_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)  # a folder cannot be replaced by a file
    with pytest.raises(OSError, match="directory"):
        durable.write_bytes(tmp_path, "x", b"data")
    assert files_below(tmp_path) == []


def test_open_files_keep_their_content_when_replaced(tmp_path: Path) -> None:
    durable.write_bytes(tmp_path, "x", b"old")
    with open(tmp_path / "x", "rb") as reader:
        durable.write_bytes(tmp_path, "x", b"new and longer")
        assert reader.read() == b"old"


def test_json_is_canonical(tmp_path: Path) -> None:
    one = durable.write_json(tmp_path, "one.json", {"b": 1, "a": "é"})
    other = durable.write_json(tmp_path, "other.json", {"a": "é", "b": 1})
    assert one.sha256 == other.sha256
    assert durable.read_json(tmp_path / "one.json") == {"a": "é", "b": 1}
    assert json.loads((tmp_path / "one.json").read_text(encoding="utf-8")) == {"a": "é", "b": 1}


def test_remove_tree_twice(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    durable.remove_tree(tmp_path / "a")
    durable.remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


# --- reading, here and elsewhere --------------------------------------------------------------


def test_read_bytes_of_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/50%\xff\xfe.bin"
    Path(os.fsdecode(path)).write_bytes(b"0123456789")
    uri = storage.uri_from_path(path)
    assert storage.read_bytes(uri) == b"0123456789"
    assert storage.read_bytes(uri, limit=3) == b"012"


def test_read_bytes_of_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(str(tmp_path / "absent"))


@pytest.fixture
def remote(tmp_path: Path) -> str:
    """A folder on pyarrow's in-memory file system, which is opened by URI like any remote one."""
    root = f"mock://{tmp_path.name.replace('_', '-')}"  # each host has a file system of its own
    fs, _ = storage.filesystem(root)
    fs.create_dir("root/sub folder", recursive=True)
    for name, data in (("a b.jpg", b"first"), ("50%25.jpg", b"second"), ("é#?.jpg", b"third")):
        with fs.open_output_stream(f"root/sub folder/{name}") as stream:
            stream.write(data)
    return f"{root}/root"


def test_remote_files_are_read_by_the_names_listed(remote: str) -> None:
    [(folder, kind, _, _)] = storage.list_remote(remote)
    assert kind == "folder"
    found = {uri: storage.read_bytes(uri) for uri, *_ in storage.list_remote(folder)}
    assert sorted(found.values()) == [b"first", b"second", b"third"]
    for uri, data in found.items():
        assert storage.remote_info(uri)[:2] == ("file", len(data))
        assert storage.read_bytes(uri, limit=2) == data[:2]


def test_remote_absence(remote: str) -> None:
    assert storage.remote_info(f"{remote}/absent")[0] == "absent"
    with pytest.raises(OSError, match="absent"):
        storage.read_bytes(f"{remote}/absent")


def test_copy_to_local(remote: str, tmp_path: Path) -> None:
    target = storage.copy_to_local(f"{remote}/sub folder/a b.jpg", tmp_path)
    assert target.read_bytes() == b"first"


def test_an_unknown_scheme_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match=r"cannot open nosuch://host: .*check the scheme"):
        storage.filesystem("nosuch://host/x")
