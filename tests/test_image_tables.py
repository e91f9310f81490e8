from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.errors import RequestError
from lookalike.records import SourceFile
from lookalike.sources.contents import Contents, claimed_name
from lookalike.sources.kinds import open_source
from lookalike.sources.sniff import claims_image
from lookalike.store import storage

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(table: pa.Table | dict[str, Any], name: str = "t.parquet", **options: Any) -> Path:
        table = table if isinstance(table, pa.Table) else pa.table(table)
        pq.write_table(table, tmp_path / name, **options)
        return tmp_path / name

    return make


def listed(spec: Path | str) -> list[SourceFile]:
    said: list[str] = []
    files = list(open_source(str(spec)).files(said.append))
    assert all(" is left out: of tables of images, " in line for line in said)
    return files


def contents_of(files: list[SourceFile]) -> list[bytes]:
    with Contents() as contents:
        return [contents.read(file) for file in files]


def structs(values: list[dict[str, Any] | None]) -> pa.Array:
    return pa.array(values, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


IMAGES = [random.Random(i).randbytes(300 + i) for i in range(100)]


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())]
)
@pytest.mark.parametrize("group", [7, 1000])
def test_rows_are_listed_and_read(write: Write, kind: pa.DataType, group: int) -> None:
    array = pa.array(IMAGES)
    array = array.dictionary_encode() if pa.types.is_dictionary(kind) else array.cast(kind)
    path = write({"picture": array, "label": list(range(100))}, row_group_size=group)
    files = listed(path)
    assert [file.uri for file in files] == [f"{path}#{i}" for i in range(100)]
    assert [(file.group, file.offset) for file in files] == [(i // group, i) for i in range(100)]
    version = str(path.stat().st_mtime_ns)
    assert [file.version for file in files] == [f"{version}+{i}" for i in range(100)]
    assert {(file.container, file.bytes, file.problem) for file in files} == {(str(path), -1, "")}
    assert [file.metadata for file in files] == [{"label": i} for i in range(100)]
    assert contents_of(files) == IMAGES
    backwards = files[::-1][:30] + files[50:60]
    assert contents_of(backwards) == IMAGES[::-1][:30] + IMAGES[50:60]
    with Contents() as contents:
        assert contents.read(files[40], 5) == IMAGES[40][:5]
        assert contents.read(files[40]) == IMAGES[40]


def test_structs_of_bytes_and_path(write: Write) -> None:
    rows = [{"bytes": b"1", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, None]
    path = write({"image": structs(rows), "label": [5, 6, 7]})
    files = listed(path)
    assert [dict(file.metadata) for file in files] == [
        {"label": 5, "image_path": "a.jpg"},
        {"label": 6, "image_path": "b.jpg"},
        {"label": 7, "image_path": None},
    ]
    with Contents() as contents:
        assert contents.read(files[0]) == b"1"
        for file in files[1:]:
            with pytest.raises(OSError, match="the row has no bytes"):
                contents.read(file)
        assert contents.read(files[0]) == b"1"
    assert all(claims_image(claimed_name(file)) for file in files)


def test_metadata_columns(write: Write) -> None:
    when = datetime(2024, 1, 2, 3, 4, 5, 678901)
    table = pa.table(
        {
            "image": [b"1"],
            "id": [9],
            "word": pa.array(["x"]).dictionary_encode(),
            "other": [b"left out"],
            "boxes": [[1, 2]],
            "when": pa.array([when], pa.timestamp("ns")),
            "nothing": pa.nulls(1),
            "size": pa.array([2**63], pa.uint64()),
        }
    )
    source = open_source(str(write(table)))
    assert {column.name: str(column.type) for column in source.metadata} == {
        "manifest_id": "int64",
        "word": "string",
        "when": "timestamp[ns]",
        "nothing": "null",
        "size": "uint64",
    }
    said: list[str] = []
    [file] = source.files(said.append)
    assert [line.partition(" is left out: ")[0] for line in said] == [
        f"{source.spec}: the column other (binary)",
        f"{source.spec}: the column boxes (list<element: int64>)",
    ]
    assert file.metadata == {
        "manifest_id": 9,
        "word": "x",
        "when": 1_704_164_645_678_901_000,
        "nothing": None,
        "size": 2**63,
    }


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["any"], "any"),
        (["thumbnail", "image"], "image"),
        (["data", "png", "bytes"], "bytes"),
        (["jpg", "img"], "img"),
        (["a", "b"], None),
    ],
)
def test_which_column_holds_the_images(write: Write, names: list[str], chosen: str | None) -> None:
    path = write({name: [name.encode()] for name in names})
    if chosen is None:
        with pytest.raises(RequestError, match=r"t.parquet: several .* \(a, b\); name the right"):
            open_source(str(path))
    else:
        assert contents_of(listed(path)) == [chosen.encode()]


def test_a_table_with_uris_is_a_manifest_unless_it_plainly_holds_images(write: Write) -> None:
    assert open_source(str(write({"uri": ["a.jpg"], "x": [1]}))).kind == "manifest"
    assert open_source(str(write({"uri": ["a.jpg"], "hash": [b"1"]}))).kind == "manifest"
    for table in (
        {"uri": ["a.jpg"], "jpg": [b"1"]},
        {"uri": ["a.jpg"], "x": structs([{"bytes": b"1", "path": None}])},
    ):
        source = open_source(str(write(table)))
        assert source.kind == "table"
        [file] = source.files(pytest.fail)
        assert file.metadata["manifest_uri"] == "a.jpg"
        assert contents_of([file]) == [b"1"]


def test_column_names_with_dots(write: Write) -> None:
    table = {"image.x": [1], "image": structs([{"bytes": b"1", "path": "p"}]), "a.b": ["y"]}
    [file] = listed(write(table))
    assert file.metadata == {"image.x": 1, "image_path": "p", "a.b": "y"}
    assert contents_of([file]) == [b"1"]
    [file] = listed(write({"x.image": [b"2"], "x.y": [b"3"], "image": [b"4"]}))
    assert contents_of([file]) == [b"4"]


@pytest.mark.parametrize(
    "table",
    [
        pa.table([[b"1"], [1], [2]], names=["image", "x", "x"]),
        pa.table([[b"1"], [b"1"]], names=["image", "image"]),
        pa.table({"image": [b"1"], "id": [1], "manifest_id": [2]}),
        pa.table({"image": structs([None]), "image_path": ["x"]}),
    ],
)
def test_names_that_clash_are_refused(write: Write, table: pa.Table) -> None:
    with pytest.raises(RequestError, match="two columns would have one name"):
        open_source(str(write(table)))


def test_tables_without_rows(write: Write) -> None:
    assert listed(write({"image": pa.array([], pa.binary())})) == []


def test_a_glob_of_tables(write: Write, tmp_path: Path) -> None:
    write({"image": [b"1"], "a": [1]}, "1.parquet")
    write({"img": [b"2"], "a": [0.5], "b": ["x"]}, "2.parquet")
    write({"uri": ["a.jpg"], "c": [True]}, "3.parquet")
    write({"nothing": ["x"]}, "5.parquet")
    (tmp_path / "4.parquet").write_bytes(b"PAR1 no more")
    source = open_source(str(tmp_path / "*.parquet"))
    assert {column.name: str(column.type) for column in source.metadata} == {
        "a": "double",
        "b": "string",
        "c": "bool",
    }
    one, two, listed_there, broken, other = source.files(pytest.fail)
    assert contents_of([one, two]) == [b"1", b"2"]
    assert (listed_there.uri, listed_there.metadata) == (str(tmp_path / "a.jpg"), {"c": True})
    assert (other.uri, other.container) == (str(tmp_path / "5.parquet"), "")
    assert broken.problem.startswith("not readable as Parquet: ")
    # in a folder they are files like others
    assert {file.container for file in listed(tmp_path)} == {""}


def test_a_damaged_row_group_costs_no_other(write: Write) -> None:
    path = write(
        {"image": IMAGES, "n": list(range(100))},
        row_group_size=25,
        compression="none",
        use_dictionary=False,
    )
    footer = pq.read_metadata(path)
    for group, column in ((1, 0), (2, 1)):  # the images of one, the metadata of another
        chunk = footer.row_group(group).column(column)
        with open(path, "r+b") as file:
            file.seek(chunk.data_page_offset)
            file.write(bytes(40))
    files = listed(path)
    assert [file.uri for file in files if file.problem] == [f"{path}#50-74"]
    assert files[50].problem.startswith("row group 2: ")
    assert len(files) == 76
    read, lost = [], []
    with Contents() as contents:
        for file in files:
            try:
                read.append(contents.read(file) if not file.problem else b"")
            except OSError:
                lost.append(file.uri)
    assert lost == [f"{path}#{i}" for i in range(25, 50)]
    assert read == [*IMAGES[:25], b"", *IMAGES[75:]]


def test_a_table_that_changed_is_not_read(write: Write) -> None:
    path = write({"image": [b"1"]})
    [file] = listed(path)
    os.utime(path, ns=(1, 1))
    with Contents() as contents, pytest.raises(OSError, match="changed since it was listed"):
        contents.read(file)


def test_large_row_groups_are_read_in_bounded_memory(write: Write) -> None:
    megabyte = bytes(1 << 20)
    path = write(
        {"image": [megabyte + bytes([i]) for i in range(200)]},
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_batch_size=8,
    )
    files = listed(path)
    before = pa.total_allocated_bytes()
    with Contents() as contents:
        for i, file in enumerate(files):
            assert contents.read(file)[-1] == i
            assert pa.total_allocated_bytes() - before < 100 << 20


def test_remote_tables(write: Write, tmp_path: Path) -> None:
    root = f"mock://{tmp_path.name.replace('_', '-')}"
    fs, _ = storage.filesystem(root)
    fs.create_dir("data", recursive=True)
    with fs.open_output_stream("data/t.parquet") as stream:
        stream.write(write({"image": IMAGES, "n": list(range(100))}).read_bytes())
    for spec in (f"{root}/data/t.parquet", f"{root}/data/*"):
        files = listed(spec)
        assert [file.uri for file in files] == [f"{root}/data/t.parquet#{i}" for i in range(100)]
        assert contents_of(files) == IMAGES
