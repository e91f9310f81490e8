from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.sources.kinds import open_source
from lookalike.sources.manifests import Manifest
from lookalike.store import storage
from lookalike.store.columns import RESERVED

Write = Callable[[bytes | str | pa.Table], Manifest]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes text as m.csv, a table as m.parquet."""

    def make(content: bytes | str | pa.Table) -> Manifest:
        if isinstance(content, pa.Table):
            pq.write_table(content, tmp_path / "m.parquet")
            return Manifest(str(tmp_path / "m.parquet"))
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / "m.csv").write_bytes(data)
        return Manifest(str(tmp_path / "m.csv"))

    return make


def types(manifest: Manifest) -> dict[str, str]:
    return {column.name: str(column.type) for column in manifest.metadata_schema()}


def metadata(manifest: Manifest) -> list[Mapping[str, Any]]:
    return [row for _, _, row in manifest.rows()]


# --- where a row leads ------------------------------------------------------------------------


def test_uris_start_in_the_folder_of_the_manifest(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = [
        "a.jpg",
        "sub/b.jpg",
        "../c.jpg",
        "/d.jpg",
        "file:///e%20f.jpg",
        "s3://bucket/g h.jpg",
        " i.jpg",
        "50%25.jpg",
        "file:///%FF.jpg",
    ]
    expected = [
        f"{tmp_path}/a.jpg",
        f"{tmp_path}/sub/b.jpg",
        f"{tmp_path.parent}/c.jpg",
        "/d.jpg",
        "/e f.jpg",
        "s3://bucket/g h.jpg",
        f"{tmp_path}/ i.jpg",
        f"{tmp_path}/50%25.jpg",
        "file:///%FF.jpg",
    ]
    csv = "\n".join(["uri", *uris])
    for manifest in (write(pa.table({"uri": uris})), write(csv)):
        assert [uri for uri, _, _ in manifest.rows()] == expected
        monkeypatch.chdir(tmp_path)
        relative = Manifest(os.path.basename(manifest.spec))
        assert [uri for uri, _, _ in relative.rows()] == expected


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "m.csv").write_text("uri,x\na.jpg,1\n,2\n")
    uris = [uri for uri, _, _ in Manifest(str(folder / "m.csv")).rows()]
    assert uris == [f"file://{tmp_path}/caf%E9/a.jpg", f"file://{tmp_path}/caf%E9/m.csv#row=2"]


def test_rows_without_a_uri_are_problems(write: Write) -> None:
    table = pa.table({"uri": ["a.jpg", None, "", "  "], "x": [1, 2, 3, 4]})
    for manifest in (write(table), write('uri,x\na.jpg,1\n,2\n"",3\n  ,4\n')):
        rows = list(manifest.rows())
        assert [problem for _, problem, _ in rows] == ["", *["the row has no uri"] * 3]
        assert [uri for uri, _, _ in rows[1:]] == [f"{manifest.spec}#row={i}" for i in (2, 3, 4)]
        assert [row["x"] for _, _, row in rows] == [1, 2, 3, 4]


def test_missing_files_are_problems_and_keep_their_metadata(write: Write, tmp_path: Path) -> None:
    (tmp_path / "there.jpg").write_bytes(b"123")
    manifest = write("uri,label\nthere.jpg,a\nabsent.jpg,b\n,c\n.,d\n")
    there, absent, blank, folder = open_source(manifest.spec).files(pytest.fail)
    assert (there.bytes, there.problem) == (3, "")
    assert absent.problem == "No such file or directory"
    assert blank.problem == "the row has no uri"
    assert folder.problem == "not a regular file"
    assert [file.metadata["label"] for file in (there, absent, blank, folder)] == list("abcd")


def test_remote_manifests(tmp_path: Path) -> None:
    root = f"mock://{tmp_path.name.replace('_', '-')}"
    fs, _ = storage.filesystem(root)
    fs.create_dir("data", recursive=True)
    for name, content in (("m.csv", b"uri,x\na.jpg,1\nmock:///b.jpg,2\n"), ("a.jpg", b"12345")):
        with fs.open_output_stream(f"data/{name}") as stream:
            stream.write(content)
    source = open_source(f"{root}/data/m.csv")
    assert source.metadata == pa.schema([("x", pa.int64())])
    first, second = source.files(pytest.fail)
    assert (first.uri, first.bytes, first.problem) == (f"{root}/data/a.jpg", 5, "")
    assert (second.uri, second.problem) == ("mock:///b.jpg", "no such file (absent)")


# --- columns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        (["1", "", "-3"], "int64", [1, None, -3]),
        (["1", "2.5", ""], "double", [1.0, 2.5, None]),
        (["true", "false", ""], "bool", [True, False, None]),
        (["True", "FALSE"], "bool", [True, False]),
        (["1", "true"], "string", ["1", "true"]),
        (["1", "x"], "string", ["1", "x"]),
        (["007", "8"], "string", ["007", "8"]),
        (["12345678901234567890", "1"], "string", ["12345678901234567890", "1"]),
        (["1234567890123456789", "1"], "int64", [1234567890123456789, 1]),
        (["1234567890123456789", "1.5"], "string", ["1234567890123456789", "1.5"]),
        (["0", "0.5", "-0.25"], "double", [0.0, 0.5, -0.25]),
        (["NA", "null", "None"], "string", ["NA", "null", "None"]),
        (["2024-01-02", "x"], "string", ["2024-01-02", "x"]),
    ],
)
def test_types_of_csv_columns(write: Write, values: list[str], kind: str, read: list[Any]) -> None:
    manifest = write("uri,v\n" + "".join(f"{i}.jpg,{value}\n" for i, value in enumerate(values)))
    assert types(manifest) == {"v": kind}
    assert [row["v"] for row in metadata(manifest)] == read


def test_types_are_settled_over_the_whole_file(write: Write) -> None:
    rows = [f'{i}.jpg,{i},"padding\nof\nmore than\none block"' for i in range(60_000)]
    manifest = write("\n".join(["uri,n,p", *rows, "last.jpg,n/a,", ""]))
    assert os.path.getsize(manifest.spec) > 2 << 20
    assert types(manifest) == {"n": "string", "p": "string"}
    found = metadata(manifest)
    assert len(found) == 60_001
    assert (found[0]["n"], found[-1]) == ("0", {"n": "n/a", "p": None})
    assert {row["p"] for row in found[:-1]} == {"padding\nof\nmore than\none block"}


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(st.lists(TEXTS, min_size=1))
def test_quoted_text_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "m.csv"
    quoted = ['"x{}"'.format(text.replace('"', '""')) for text in texts]
    path.write_text("uri,v\n" + "".join(f"a,{text}\n" for text in quoted), "utf-8", newline="")
    assert [row["v"] for row in metadata(Manifest(str(path)))] == [f"x{text}" for text in texts]


def test_a_byte_order_mark_is_no_part_of_a_name(write: Write, tmp_path: Path) -> None:
    manifest = write(b"\xef\xbb\xbfuri,label\r\na.jpg,x\r\n")
    assert list(manifest.rows()) == [(f"{tmp_path}/a.jpg", "", {"label": "x"})]


def test_names_that_lookalike_uses_itself_are_carried(write: Write) -> None:
    table = pa.table({"uri": ["a.jpg"], **{name: ["v"] for name in sorted(RESERVED - {"uri"})}})
    csv = f"{','.join(table.column_names)}\na.jpg{',v' * (len(RESERVED) - 1)}\n"
    expected = {f"manifest_{name}": "v" for name in RESERVED - {"uri"}}
    for manifest in (write(table), write(csv)):
        assert types(manifest) == dict.fromkeys(expected, "string")
        assert metadata(manifest) == [expected]


def test_parquet_types_are_kept_and_dictionaries_are_plain(write: Write) -> None:
    table = pa.table(
        {
            "uri": pa.array(["a.jpg", "b.jpg"]).dictionary_encode(),
            "word": pa.array(["x", None]).dictionary_encode(),
            "large": pa.array(["y", "z"], pa.large_string()),
            "tags": pa.array([["p", "q"], []]),
            "small": pa.array([1, 2], pa.int8()),
        }
    )
    manifest = write(table)
    assert types(manifest) == {
        "word": "string",
        "large": "large_string",
        "tags": "list<element: string>",
        "small": "int8",
    }
    assert metadata(manifest) == [
        {"word": "x", "large": "y", "tags": ["p", "q"], "small": 1},
        {"word": None, "large": "z", "tags": [], "small": 2},
    ]


def test_a_large_string_uri(write: Write, tmp_path: Path) -> None:
    manifest = write(pa.table({"uri": pa.array(["a.jpg"], pa.large_string())}))
    assert list(manifest.rows()) == [(f"{tmp_path}/a.jpg", "", {})]


def test_manifests_without_rows(write: Write) -> None:
    for manifest in (
        write("uri,x\n"),
        write(pa.table({"uri": pa.array([], pa.string()), "x": pa.array([], pa.int32())})),
    ):
        assert list(manifest.metadata_schema().names) == ["x"]
        assert list(manifest.rows()) == []


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\na.jpg,x\n", r"needs a column `uri`; its columns are path, label$"),
        ("uri;label\na.jpg;x\n", r"its columns are uri;label; fields are separated by semi"),
        ('"uri"\tlabel\na.jpg\tx, y\n', r"line 1: .*fields are separated by tabs: write"),
        ("label|uri\nx|a.jpg\n", r"fields are separated by bars: write the file"),
        (" uri\na.jpg\n", r"needs a column `uri`; its columns are  uri$"),
        (pa.table({"path": ["a"]}), r"needs a column `uri`; its columns are path$"),
        (pa.table({}), r"needs a column `uri`; its columns are none$"),
        (b"", r"it is empty; its first line names the columns$"),
        (b"\n\r\n\n", r"it is empty; its first line names the columns$"),
        ("uri,label\na.jpg,x,y\n", r"line 2: 3 fields where the header has 2; put a field that"),
        ("uri,label\na.jpg,x\nb.jpg\n", r"line 3: 1 field where the header has 2; is it cut"),
        (b"uri,label\na.jpg,caf\xe9\n", r"line 2: the byte 0xe9 is no UTF-8; save the file as"),
        (b"uri,caf\xe9\na.jpg,x\n", r"line 1: the byte 0xe9 is no UTF-8; save the file as"),
        (bytes(range(256)) * 50, r"line 1: a NUL character, which no text has"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 999, r"line 1: the byte 0x89 is no UTF-8"),
        (
            gzip.compress(b"uri\na.jpg\n", mtime=0)[:-9],
            r"not readable as CSV: Compressed file ended before",
        ),
        (
            gzip.compress(b"uri\na.jpg\n", mtime=0)[:-8] + bytes(8),
            r"not readable as CSV: CRC check failed",
        ),
        ("uri,x,x\na.jpg,1,2\n", r"the column 'x' is there twice"),
        ("uri,uri\na.jpg,b.jpg\n", r"the column 'uri' is there twice"),
        ("uri,id,manifest_id\na.jpg,1,2\n", r"twice .*carried as manifest_<name>"),
        (pa.table([["a"], [1], [2]], names=["uri", "x", "x"]), r"the column 'x' is there twice"),
        (pa.table({"uri": [b"a.jpg"]}), r"the column `uri` must hold text, it holds binary"),
        (pa.table({"uri": [1, 2]}), r"the column `uri` must hold text, it holds int64"),
    ],
)
def test_wrong_manifests_are_refused_by_name(
    write: Write, content: bytes | str | pa.Table, message: str
) -> None:
    manifest = write(content)
    with pytest.raises(RequestError, match=message) as caught:
        open_source(manifest.spec)
    assert str(caught.value).startswith(f"{manifest.spec}: ")
    assert "\n" not in str(caught.value)


def test_parquet_that_is_none_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"uri\na.jpg\n", b"PAR1" + bytes(100) + b"PAR1"):
        (tmp_path / "m.parquet").write_bytes(content)
        with pytest.raises(RequestError, match=r"m\.parquet: not readable as Parquet: "):
            open_source(str(tmp_path / "m.parquet"))


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("checksums", [False, True])
def test_damage_within_parquet_is_told_before_a_run_begins(
    tmp_path: Path, column: int, checksums: bool
) -> None:
    path = tmp_path / "m.parquet"
    table = pa.table({"uri": [f"{i:08x}.jpg" for i in range(30_000)], "x": range(30_000)})
    pq.write_table(table, path, row_group_size=10_000, write_page_checksum=checksums)
    chunk, data = pq.read_metadata(path).row_group(1).column(column), bytearray(path.read_bytes())
    # a page's header, or what only its checksum tells
    at = chunk.data_page_offset + checksums * chunk.total_compressed_size // 2
    data[at : at + 8] = bytes(255 - byte for byte in data[at : at + 8])
    path.write_bytes(data)
    with pytest.raises(RequestError, match=r"of 30,000 rows, none after row [0-9,]+: ") as told:
        open_source(str(path))
    [row] = re.findall(r"after row ([0-9,]+)", str(told.value))
    assert 8192 <= int(row.replace(",", "")) <= 20_000


def test_text_that_is_no_utf8_in_parquet_is_named(write: Write) -> None:
    odd = pa.array([b"a.jpg"] * 9000 + [b"caf\xe9.jpg"]).view(pa.string())
    fine = pa.array([str(i) for i in range(9001)])
    for table, name in ((pa.table({"uri": odd}), "uri"), (pa.table({"uri": fine, "x": odd}), "x")):
        with pytest.raises(RequestError, match=rf"row 9,001, column '{name}': .*UTF8"):
            open_source(write(table).spec)


# --- rows that name nothing, and files that change ----------------------------------------------


def test_odd_uris_are_rows_with_a_reason(write: Write, tmp_path: Path) -> None:
    long = "x" * 5000
    uris = ["a\0b.jpg", "new\nline.jpg", long, "nofs://x/y.jpg", "there.jpg"]
    (tmp_path / "there.jpg").write_bytes(b"123")
    *odd, there = open_source(write(pa.table({"uri": uris})).spec).files(pytest.fail)
    assert there.problem == ""
    assert [bool(file.problem) for file in odd] == [True] * 4
    assert odd[0].problem == "the row's uri has a NUL character"
    assert odd[1].uri == f"{tmp_path}/new\nline.jpg"
    (tmp_path / "new\nline.jpg").write_bytes(b"1")
    [file] = open_source(write('uri\n"new\nline.jpg"\n').spec).files(pytest.fail)
    assert (file.uri, file.problem) == (f"{tmp_path}/new\nline.jpg", "")


def test_a_manifest_that_changes_while_it_is_read(write: Write) -> None:
    for before, after in (
        ("uri,n\na,1\nb,2\n", "uri,n\na,1\n"),
        ("uri,n\na,1\nb,2\n", "uri,n\na,x\nb,2\n"),
        ("uri,n\na,1\nb,2\n", "uri,m\na,1\nb,2\n"),
        (pa.table({"uri": ["a", "b"]}), pa.table({"uri": ["a"]})),
    ):
        manifest = write(before)
        assert manifest.metadata_schema() is not None
        write(after)
        with pytest.raises(RequestError, match="it changed while it was read; run the command"):
            list(manifest.rows())


def test_a_gzipped_manifest(tmp_path: Path) -> None:
    content = "uri,label\r\n" + "".join(f'{i}.jpg,"é\r\n{i}"\r\n' for i in range(30_000))
    halves = content[:99_999].encode(), content[99_999:].encode()
    data = b"".join(gzip.compress(half) for half in halves)  # as `cat` joins them
    for name in ("m.csv.gz", "m.csv", "M.CSV.GZ"):
        (tmp_path / name).write_bytes(data)
        source = open_source(str(tmp_path / name))
        assert source.kind == "manifest"
        rows = list(Manifest(source.spec).rows())
        assert rows[29_999] == (f"{tmp_path}/29999.jpg", "", {"label": "é\r\n29999"})


def test_times_finer_than_python_has_are_kept(write: Write) -> None:
    ns = 1_700_000_000_123_456_789
    table = pa.table(
        {
            "uri": ["a.jpg"],
            "at": pa.array([ns], pa.timestamp("ns", "UTC")),
            "took": pa.array([ns], pa.duration("ns")),
            "time": pa.array([123_456_789], pa.time64("ns")),
            "in": pa.array([{"at": [ns]}], pa.struct([("at", pa.list_(pa.timestamp("ns")))])),
        }
    )
    [row] = metadata(write(table))
    assert row == {"at": ns, "took": ns, "time": 123_456_789, "in": {"at": [ns]}}
    assert str(row["at"]) == "2023-11-14T22:13:20.123456789Z"
    assert str(row["in"]["at"][0]) == "2023-11-14T22:13:20.123456789"
    assert str(row["time"]) == "00:00:00.123456789"
