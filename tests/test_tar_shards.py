from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.records import SourceFile
from lookalike.sources import tar_shards
from lookalike.sources.contents import Contents, CutShortError, claimed_name
from lookalike.sources.kinds import open_source
from lookalike.sources.tar_shards import GROUP
from lookalike.store import storage
from tests.tar_files import Files, listed, names, pack, write_tar

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(write_tar, tmp_path)


PICTURES: Files = [("b/1.jpg", b"one"), ("b/2.jpg", b"2" * 5000), ("a/3.png", b""), ("4", b"four")]

# --- members ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz", "S.TGZ", "gzipped.tar"])
@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_listed_in_order_and_read(write: Write, name: str, fmt: int) -> None:
    data = pack(PICTURES, fmt)
    path = write(gzip.compress(data) if name == "gzipped.tar" else data, name)
    files = listed(path)
    assert names(files) == [one for one, _ in PICTURES]
    assert [file.bytes for file in files] == [len(content) for _, content in PICTURES]
    assert {file.container for file in files} == {str(path)}
    version = str(path.stat().st_mtime_ns)
    assert [file.version for file in files] == [f"{version}+{file.offset}" for file in files]
    with Contents() as contents:
        for file, (_, content) in zip(files, PICTURES, strict=True):
            assert contents.read(file, 2) == content[:2]
            assert contents.read(file) == content
            assert contents.read(file, 2) == content[:2]
        for file, (_, content) in reversed(list(zip(files, PICTURES, strict=True))):
            assert contents.read(file) == content


def test_long_and_odd_names_are_just_names(write: Write) -> None:
    odd = [
        "../up.jpg",
        "/abs.jpg",
        "./dot.jpg",
        "a//b.jpg",
        "é.jpg",
        "x" * 300 + ".jpg",
        "d/" * 200 + "x.jpg",
        "new\nline.jpg",
        "<b>&amp;.jpg",
        "#1.jpg",
        "a b.jpg",
    ]
    for fmt in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = write(pack([(name, name.encode()) for name in odd], fmt))
        files = listed(path)
        assert [file.uri for file in files] == [f"{path}#{name}" for name in odd]
        with Contents() as contents:
            assert [contents.read(file).decode() for file in files] == odd
    assert sorted(os.listdir(path.parent)) == ["s.tar"]


def test_names_that_are_not_utf8_are_percent_encoded(write: Write) -> None:
    files = listed(write([("caf\udce9/\udcff 1.jpg", b"x")]))
    assert names(files) == ["caf%E9/%FF 1.jpg"]
    assert pa.array([files[0].uri]).to_pylist() == [files[0].uri]


def test_equal_names_are_told_apart_by_their_offset(write: Write) -> None:
    files = listed(write([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3"), ("a.jpg@2560", b"4")]))
    assert names(files) == ["a.jpg", "b.jpg", "a.jpg@2560", "a.jpg@2560@3584"]
    assert [claimed_name(file).partition("#")[2] for file in files[:3]] == [
        "a.jpg",
        "b.jpg",
        "a.jpg",
    ]
    with Contents() as contents:
        assert [contents.read(file) for file in files] == [b"1", b"2", b"3", b"4"]


def test_a_plain_tar_is_cut_into_pieces_and_a_gzipped_one_is_not(write: Write) -> None:
    content = pack([(f"{i}.jpg", b"") for i in range(GROUP + 2)])
    plain, packed = listed(write(content)), listed(write(content, "s.tgz"))
    assert [file.group for file in plain] == [0] * GROUP + [1, 1]
    assert {file.group for file in packed} == {0}


def test_a_shard_that_changed_is_not_read(write: Write) -> None:
    path = write(PICTURES)
    [file, *_] = listed(path)
    write([("other", b"x" * 9000), *PICTURES])
    os.utime(path, ns=(1, 1))
    with Contents() as contents, pytest.raises(OSError, match="changed since it was listed"):
        contents.read(file)
    path.unlink()
    with Contents() as contents, pytest.raises(OSError, match="No such file"):
        contents.read(file)


# --- damage -----------------------------------------------------------------------------------

MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(["a.jpg", "b/c.png", "long/" * 30 + "é.gif", "x" * 120]),
        st.integers(0, 3000),
    ),
    min_size=1,
    max_size=12,
)


def _tar_with_ends(shape: list[tuple[str, int]], fmt: int) -> tuple[bytes, Files, list[int]]:
    """A tar, its members, and where the data of each end."""
    mixed = random.Random(len(shape))
    files = [(f"{i}-{name}", mixed.randbytes(size)) for i, (name, size) in enumerate(shape)]
    data = pack(files, fmt)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        ends = [info.offset_data + info.size for info in tar]
    return data, files, ends


def _read_all(path: Path) -> tuple[dict[str, bytes], dict[str, str], list[str]]:
    """What can be read of each member, how the others fail, and what is said of the shard."""
    read: dict[str, bytes] = {}
    failed: dict[str, str] = {}
    problems = []
    with Contents() as contents:
        for file in tar_shards.members(
            SourceFile(str(path), path.stat().st_size, str(path.stat().st_mtime_ns))
        ):
            if not file.container:
                problems.append(file.problem)
                continue
            name = file.uri.partition("#")[2]
            try:
                read[name] = contents.read(file)
            except CutShortError as error:
                failed[name] = str(error)
    return read, failed, problems


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=MEMBERS,
    cut=st.floats(0, 1, exclude_max=True),
    packed=st.booleans(),
    fmt=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_a_cut_loses_only_what_lies_behind_it(
    tmp_path: Path, shape: list[tuple[str, int]], cut: float, packed: bool, fmt: int
) -> None:
    data, files, ends = _tar_with_ends(shape, fmt)
    whole = gzip.compress(data, 1) if packed else data
    path = tmp_path / "s.tar"
    path.write_bytes(whole[: int(cut * len(whole))])
    there = int(cut * len(whole))
    if packed:
        there = len(zlib.decompressobj(31).decompress(path.read_bytes()))
    read, failed, problems = _read_all(path)
    assert read == {
        name: content
        for (name, content), end in zip(files, ends, strict=True)
        if end <= there and name in read
    }
    # a member of no bytes has its end in its header
    assert {name for (name, _), end in zip(files, ends, strict=True) if end <= there} == set(read)
    assert len(failed) <= 1
    assert set(failed) <= {name for name, _ in files} - set(read)
    zeros = 0 if not there else len(data[:there]) - len(data[:there].rstrip(b"\0"))
    if packed or zeros < 512:
        [problem] = problems
        assert "at byte" in problem or "not a tar" in problem or "gzip" in problem


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(shape=MEMBERS, where=st.floats(0, 1, exclude_max=True), bit=st.integers(1, 255))
def test_damage_in_a_gzipped_tar_is_always_reported(
    tmp_path: Path, shape: list[tuple[str, int]], where: float, bit: int
) -> None:
    data, files, _ = _tar_with_ends(shape, tarfile.GNU_FORMAT)
    damaged = bytearray(gzip.compress(data, 1, mtime=0))
    position = 10 + int(where * (len(damaged) - 10))  # the header of gzip says nothing of the data
    damaged[position] ^= bit
    path = tmp_path / "s.tgz"
    path.write_bytes(damaged)
    read, _, problems = _read_all(path)
    assert problems or read == dict(files)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=MEMBERS,
    fmt=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
    ),
)
def test_hostile_headers_do_no_harm(
    tmp_path: Path, shape: list[tuple[str, int]], fmt: int, changes: list[tuple[float, int]]
) -> None:
    """Headers changed at random with their checksums made good: anything is listed or reported."""
    data = bytearray(_tar_with_ends(shape, fmt)[0])
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
        headers = [info.offset for info in tar]
    for place, value in changes:
        at = int(place * 512 * len(headers))
        header = headers[at // 512]
        data[header + at % 512] = value
        data[header + 148 : header + 156] = b" " * 8
        total = sum(data[header : header + 512])
        data[header + 148 : header + 156] = b"%06o\0 " % total
    path = tmp_path / "s.tar"
    path.write_bytes(data)
    read, failed, problems = _read_all(path)
    assert read or failed or problems


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "s.tar", r"not a tar \(it is empty\)"),
        (b"hello\n", "s.tar", r"not a tar \(it starts with b'hello\\n'\)"),
        (b"<html>" * 500, "s.tar", r"not a tar \(it starts with b'<html>"),
        (b"\x1f\x8b123", "s.tar", "gzip: "),
        (b"hello\n" * 200, "s.tgz", "not a tar"),
    ],
)
def test_what_is_no_tar_is_refused_by_name(
    write: Write, content: bytes, name: str, message: str
) -> None:
    path = write(content, name)
    with pytest.raises(RequestError, match=rf"{name}: not readable as a tar shard: {message}"):
        open_source(str(path))
    # matched by a glob it is a reject among others
    [file] = listed(path.parent / "s.*")
    assert file.uri == str(path)
    assert file.problem


def test_a_tar_cut_within_its_first_headers(write: Write) -> None:
    data = pack([("é" * 200 + ".jpg", b"x")], tarfile.PAX_FORMAT)
    for cut in range(513, 1536, 200):
        read, failed, [problem] = _read_all(write(data[:cut]))
        assert not read
        assert not failed
        assert "cut short at byte 0: ends within" in problem


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        (-5, "a header announces -5 bytes"),
        (2**80, "a header announces 1208925819614629174706176 bytes"),
        (2**61, "ends within 'a.jpg' (1,536 of 2,305,843,009,213,693,952 bytes)"),
    ],
)
def test_impossible_sizes(write: Write, size: int, problem: str) -> None:
    data = bytearray(pack([("0.jpg", b"0"), ("a.jpg", b"abc"), ("b.jpg", b"d")]))
    header = 1024
    length = 12
    data[header + 124 : header + 136] = bytes([0x80 if size >= 0 else 0xFF]) + (
        size.to_bytes(length - 1, "big", signed=True)
    )
    data[header + 148 : header + 156] = b" " * 8
    total = sum(data[header : header + 512])
    data[header + 148 : header + 156] = b"%06o\0 " % total
    data = data[:3072]
    read, failed, [found] = _read_all(write(bytes(data)))
    assert read == {"0.jpg": b"0"}
    assert problem in found or "no tar header" in found
    assert set(failed) <= {"a.jpg"}


def test_an_empty_tar_has_no_files(write: Write) -> None:
    assert listed(write([])) == []


def test_a_hole_of_zeros_is_reported(write: Write) -> None:
    data = bytearray(pack([(f"{i}.jpg", random.Random(i).randbytes(700)) for i in range(4)]))
    data[1536:3300] = bytes(3300 - 1536)  # from the second header into the data of the second
    read, _, [problem] = _read_all(write(bytes(data)))
    assert set(read) == {"0.jpg"}
    assert "no tar header" in problem
    assert "after '0.jpg'" in problem


def test_a_long_name_beyond_all_measure(write: Write) -> None:
    [file, *rest] = listed(write([("n" * 5000 + ".jpg", b"1"), ("a.jpg", b"2")]))
    assert file.problem == "a name of 5,004 bytes, the limit is 4,096"
    assert names(rest) == ["a.jpg"]
    read, _, [problem] = _read_all(write([("0.jpg", b"0"), ("n" * (2 << 20), b"1")]))
    assert read == {"0.jpg": b"0"}
    assert "an extended header has 2,097,153 bytes" in problem


# --- as sources -------------------------------------------------------------------------------


def columns(spec: Path | str) -> dict[str, str]:
    return {column.name: str(column.type) for column in open_source(str(spec)).metadata}


def test_a_tar_in_a_folder_is_a_file_like_others(write: Write, tmp_path: Path) -> None:
    path = write(PICTURES)
    (tmp_path / "a.jpg").write_bytes(b"a")
    for spec in (tmp_path, tmp_path.parent / f"{tmp_path.name}*", tmp_path / "**"):
        assert [file.uri for file in listed(spec)] == [f"{tmp_path}/a.jpg", str(path)]
        assert columns(spec) == {}


@pytest.mark.parametrize("pattern", ["s*.tar", "*", "**/s.tar", "**/*", "[s]*"])
def test_a_glob_opens_the_tars_that_it_names(write: Write, tmp_path: Path, pattern: str) -> None:
    path = write(PICTURES)
    (tmp_path / "s.csv").write_bytes(b"x")
    files = [file for file in listed(tmp_path / pattern) if file.container]
    assert [file.uri for file in files] == [f"{path}#{name}" for name, _ in PICTURES]
    assert columns(tmp_path / pattern) == {"__key__": "string"}


def test_a_folder_named_like_a_tar(tmp_path: Path) -> None:
    (tmp_path / "d.tar").mkdir()
    (tmp_path / "d.tar" / "a.jpg").write_bytes(b"a")
    for spec in (tmp_path / "d.tar", tmp_path / "*.tar"):
        assert [file.uri for file in listed(spec)] == [f"{tmp_path}/d.tar/a.jpg"]


@pytest.mark.parametrize("name", ["s.tar", "s.tgz"])
def test_remote_shards(write: Write, tmp_path: Path, name: str) -> None:
    root = f"mock://{tmp_path.name.replace('_', '-')}"
    fs, _ = storage.filesystem(root)
    fs.create_dir("data", recursive=True)
    many = [(f"{i}.jpg", random.Random(i).randbytes(3000)) for i in range(900)]
    with fs.open_output_stream(f"data/{name}", compression=None) as stream:
        stream.write(write(many, name).read_bytes())
    for spec in (f"{root}/data/{name}", f"{root}/data/*"):
        files = listed(spec)
        assert [file.uri for file in files] == [f"{root}/data/{name}#{one}" for one, _ in many]
        with Contents() as contents:
            assert [contents.read(file) for file in files] == [content for _, content in many]
            assert contents.read(files[5]) == many[5][1]
