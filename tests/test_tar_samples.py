from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.records import SourceFile
from lookalike.sources import tar_samples, tar_shards
from lookalike.sources.kinds import metadata_schema, open_source
from lookalike.sources.listing import listing_schema, write_listing
from lookalike.store.objects import open_store
from tests.scanning import read_files
from tests.tar_files import Files, listed, names, write_tar

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(write_tar, tmp_path)


# --- metadata ---------------------------------------------------------------------------------


def columns(path: Path | str) -> dict[str, str]:
    return {column.name: str(column.type) for column in open_source(str(path)).metadata}


def test_siblings_are_metadata_of_the_other_members(write: Write) -> None:
    fields = {"n": 1, "x": 0.5, "ok": True, "none": None, "text": "t", "list": [1, "é"], "uri": "u"}
    shard: Files = [
        ("d/1.jpg", b"p"),
        ("d/1.seg.png", b"q"),
        ("d/1.json", json.dumps(fields).encode()),
        ("d/1.txt", "a caption\né".encode()),
        ("d/1.cls", b"7\n"),
        ("d/2.cls", b"8"),
        ("d/2.JPG", b"r"),
        ("3.jpg", b"s"),
        ("readme", b"-"),
        (".hidden.jpg", b"h"),
        ("4.txt", b"alone"),
    ]
    path, notices = write(shard), []
    files = listed(path, notices)
    assert names(files) == [
        *("d/1.jpg", "d/1.seg.png", "d/2.JPG", "3.jpg", "readme", ".hidden.jpg", "4.txt"),
    ]
    assert notices == [
        "1 .json, .txt or .cls members of tars are no metadata, the first is "
        f"{path}#4.txt: no picture of its name lies beside it"
    ]
    expected = {
        "n": 1,
        "x": 0.5,
        "ok": True,
        "none": None,
        "text": "t",
        "list": '[1, "é"]',
        "manifest_uri": "u",
        "txt": "a caption\né",
        "cls": 7,
        "__key__": "d/1",
    }
    assert [dict(file.metadata) for file in files] == [
        expected,
        expected,
        {"cls": 8, "__key__": "d/2"},
        {"__key__": "3"},
        {},
        {},
        {},
    ]
    assert columns(path) == {
        "__key__": "string",
        "n": "int64",
        "x": "double",
        "ok": "bool",
        "none": "string",
        "text": "string",
        "list": "string",
        "manifest_uri": "string",
        "txt": "string",
        "cls": "int64",
    }


@given(st.text("ab./", min_size=1, max_size=12))
def test_names_are_split_as_webdataset_does(name: str) -> None:
    if name.rpartition("/")[2].startswith("."):
        assert tar_samples.split(name.encode()) == (None, "")
        return
    # the pattern of webdataset.tariterators.base_plus_ext
    match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", name)
    key, extension = tar_samples.split(name.encode())
    assert (key, extension) == ((match[1].encode(), match[2]) if match else (None, ""))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"7",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"{" + b" " * (1 << 20) + b"}",
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_json_that_is_no_metadata_is_a_member_like_others(write: Write, content: bytes) -> None:
    notices: list[str] = []
    files = listed(write([("1.jpg", b"p"), ("1.json", content)]), notices)
    assert names(files) == ["1.jpg", "1.json"]
    assert dict(files[0].metadata) == {"__key__": "1"}
    why = "it has 1,048,578 bytes, the limit is" if len(content) > 1 << 20 else "it is no JSON obj"
    [notice] = notices
    assert f"the first is {files[1].uri}: {why}" in notice


def test_odd_keys_and_values(write: Write, tmp_path: Path) -> None:
    text = r'{"": 1, "\ud800": "\udfff", "new\nline": NaN, "big": 123456789012345678901}'
    text = text[:-1] + r', "\u0000": 1e999}'
    path = write([("1.jpg", b"p"), ("1.json", text.encode())])
    source = open_source(str(path))
    schema = listing_schema(metadata_schema([source]))
    [part] = write_listing(open_store(tmp_path), "l", source.files(), schema, pytest.fail).parts
    [file] = read_files(tmp_path / part)
    assert {k: v for k, v in file.metadata.items() if v == v} == {
        "__key__": "1",
        "": 1,
        "?": "?",
        "big": "123456789012345678901",
        "\0": float("inf"),
    }


def test_types_that_disagree_become_strings_and_late_ones_are_left_out(
    write: Write, tmp_path: Path
) -> None:
    def sample(i: int, **values: Any) -> Files:
        return [(f"{i}.jpg", b"p"), (f"{i}.json", json.dumps(values).encode())]

    write([*sample(1, a=1, b=2, c=1), *sample(2, a="x", b=0.5, c=2)], "1.tar")
    late = [part for i in range(101) for part in sample(i, d=True)]
    write([*late, *sample(200, a=5, b=7, c="late", e=1, d=3)], "2.tar")
    source = open_source(str(tmp_path / "*.tar"))
    assert {column.name: str(column.type) for column in source.metadata} == {
        "__key__": "string",
        "a": "string",
        "b": "double",
        "c": "int64",
        "d": "bool",
    }
    notices: list[str] = []
    schema = listing_schema(metadata_schema([source]))
    listing = write_listing(open_store(tmp_path), "l", source.files(), schema, notices.append)
    *_, last = read_files(tmp_path / listing.parts[-1])
    assert last.metadata == {"__key__": "200", "a": "5", "b": 7.0, "c": None, "d": None}
    assert sorted(notice.split("'")[1] for notice in notices) == ["c", "d", "e"]


def test_very_many_columns(write: Write, tmp_path: Path) -> None:
    fields = {f"k{i}": i for i in range(5000)}
    source = open_source(str(write([("1.jpg", b"p"), ("1.json", json.dumps(fields).encode())])))
    schema = metadata_schema([source])
    assert len(schema) == 256
    notices: list[str] = []
    write_listing(open_store(tmp_path), "l", source.files(), listing_schema(schema), notices.append)
    assert 1 < len(notices) < 50


def test_a_sample_without_end(write: Write) -> None:
    files = listed(write([("x.json", b'{"a": 1}'), *[(f"x.{i}.jpg", b"") for i in range(2500)]]))
    assert len(files) == 2500
    assert all(file.metadata == {"a": 1, "__key__": "x"} for file in files)


def test_unreadable_shards_have_no_columns(tmp_path: Path) -> None:
    gone = SourceFile(str(tmp_path / "gone.tar"), -1, "")
    assert tar_shards.metadata_schema([gone]) == pa.schema([])


# --- which caption is whose ---------------------------------------------------------------------

P = b"\x89PNG"  # data that are not read


def json_of(caption: object) -> bytes:
    return json.dumps({"c": caption}).encode()


def captions(path: Path, notices: list[str] | None = None) -> list[tuple[str, object]]:
    """Each member's name, without what tells equal ones apart, and its caption."""
    files = listed(path, notices)
    return [
        (name.partition("@")[0], file.metadata.get("c"))
        for name, file in zip(names(files), files, strict=True)
    ]


@pytest.mark.parametrize("name", ["s.tar", "s.tgz"])
@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("jpg json jpg json", [0, 1]),
        ("json jpg json jpg", [0, 1]),
        ("jpg json jpg json jpg json", [0, 1, 2]),
        ("jpg json jpg", [0, None]),
        ("jpg jpg json", [None, 0]),
        ("json jpg jpg json", [0, 1]),
        ("jpg json json jpg", [0, 1]),
        ("jpg jpg", [None, None]),
    ],
)
def test_a_name_that_comes_again_begins_another_sample(
    write: Write, name: str, order: str, expected: list[int | None]
) -> None:
    numbers = iter(range(9))
    shard = [(f"d/a.{one}", P if one == "jpg" else json_of(next(numbers))) for one in order.split()]
    assert captions(write(shard, name)) == [("d/a.jpg", one) for one in expected]


@pytest.mark.parametrize(
    ("shard", "expected"),
    [
        # WebDataset: all of one key
        (["000.jpg", "000.seg.png", "000.json"], ["000.json", "000.json"]),
        (["000.json", "000.jpg", "001.jpg", "001.json"], ["000.json", "001.json"]),
        # names with dots of their own
        (["track 2.0.jpg", "track 2.0.json"], ["track 2.0.json"]),
        (["v.0.jpg", "v.0.json", "v.1.jpg", "v.1.json"], ["v.0.json", "v.1.json"]),
        (["v.0.json", "v.0.jpg", "v.1.jpg", "v.2.jpg", "v.2.json"], ["v.0.json", None, "v.2.json"]),
        (["v.0.jpg", "v.1.jpg", "v.0.json", "v.1.json"], ["v.0.json", "v.1.json"]),
        (["1.10.jpg", "1.1.jpg", "1.1.json"], [None, "1.1.json"]),  # not by beginning alone
        (
            ["2024-01-02 10.11.12.jpg", "2024-01-02 10.11.12.json", "2024-01-02 10.11.13.jpg"],
            ["2024-01-02 10.11.12.json", None],
        ),
        # both: the longer name counts
        (["a.json", "a.jpg", "a.b.jpg", "a.b.json"], ["a.json", "a.b.json"]),
        (["a.seg.json", "a.jpg", "a.seg.png", "a.json"], ["a.json", "a.seg.json"]),
        # a picture may be named for its format twice, and a sidecar for the picture
        (["a.tar.jpg", "a.tar.json", "b.jpg", "b.jpg.json"], ["a.tar.json", None, None]),
        # folders, hidden files, and what macOS adds
        (["x/a.jpg", "y/a.json", "y/a.jpg"], [None, "y/a.json"]),
        (["a.b/1.jpg", "a.b/1.json", "a.c/1.jpg"], ["a.b/1.json", None]),
        (["./._a.jpg", "./a.jpg", "./._a.json", "./a.json"], [None, "./a.json", None]),
        (["a.jpg", "readme", "a.json"], ["a.json", None]),
        (["A.JPG", "A.JSON"], ["A.JSON"]),
        (["a.jpg", "a.JPG", "a.json"], ["a.json", "a.json"]),
    ],
)
def test_a_sidecar_belongs_to_names_that_go_on_where_it_has_its_suffix(
    write: Write, shard: list[str], expected: list[str | None]
) -> None:
    members = [
        (name, json_of(name) if name.lower().endswith("json") and "._" not in name else P)
        for name in shard
    ]
    given = {caption for caption in expected if caption}
    listing = [name for name in shard if name not in given]
    rows = captions(write(members), [])
    assert rows == [
        (name, caption) for name, caption in zip(listing, [*expected, None, None], strict=False)
    ]


def test_kinds_of_sidecars_are_found_each_by_itself(write: Write) -> None:
    shard = [
        ("a.txt", b"all"),
        ("a.1.jpg", P),
        ("a.1.json", json_of("one")),
        ("a.1.cls", b" 7 "),
        ("a.2.jpg", P),
        ("a.2.txt", b"\xef\xbb\xbftwo"),
    ]
    one, two = listed(write(shard))
    assert one.metadata == {"c": "one", "txt": "all", "cls": 7, "__key__": "a"}
    assert two.metadata == {"txt": "two", "__key__": "a"}


def test_sidecars_apart_from_their_pictures_are_listed_and_told(write: Write) -> None:
    shard = [*[(f"{i}.jpg", P) for i in range(3)], *[(f"{i}.json", b"{}") for i in range(3)]]
    notices: list[str] = []
    path = write(shard)
    assert captions(path, notices) == [(name, None) for name, _ in shard]
    [notice] = notices
    assert notice.startswith("3 .json, .txt or .cls members of tars are no metadata, the first is")
    assert notice.endswith(f"{path}#0.json: no picture of its name lies beside it")


@pytest.mark.parametrize("first", ["json", "png"])
def test_very_many_names_of_one_key_keep_their_captions(write: Write, first: str) -> None:
    """As frames of a film are named: all are one sample, and only some of them are held."""
    shard = [("frame.txt", b"film")]
    for i in range(3000):
        pair = [(f"frame.{i:04d}.png", P), (f"frame.{i:04d}.json", json_of(i))]
        shard += pair if first == "png" else pair[::-1]
    shard += [("frame.0001.png", P), ("frame.0001.json", json_of("again"))]
    files = listed(write(shard))
    assert [file.metadata["c"] for file in files] == [*range(3000), "again"]
    assert [file.metadata.get("txt") for file in files] == ["film"] * 3000 + [None]


@given(st.lists(st.tuples(st.sampled_from(["a", "a.1", "a.2", "b"]), st.booleans()), max_size=12))
def test_no_caption_is_given_to_another_copy_of_a_name(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, bool]]
) -> None:
    """A picture's caption is the nearest of its own name in the file, with none like it between."""
    shard = [
        (f"{stem}.json", json_of(i)) if is_json else (f"{stem}.png", P)
        for i, (stem, is_json) in enumerate(parts)
    ]
    path = write_tar(tmp_path_factory.mktemp("tar"), shard)
    pictures = [i for i, (_, is_json) in enumerate(parts) if not is_json]
    found = [caption for name, caption in captions(path, []) if name.endswith("png")]
    for i, caption in zip(pictures, found, strict=True):
        if caption is None:
            continue
        assert isinstance(caption, int)
        assert parts[i][0].startswith(parts[caption][0])
        between = shard[min(i, caption) + 1 : max(i, caption)]
        assert shard[i] not in between
        assert parts[caption][0] + ".json" not in dict(between)
