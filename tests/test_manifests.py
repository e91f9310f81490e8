from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.sources.columns import RESERVED
from lookalike.sources.kinds import open_source
from lookalike.sources.manifests import Manifest
from lookalike.store import storage

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
    uris = ["a.jpg", "sub/b.jpg", "../c.jpg", "/d.jpg", "file:///e%20f.jpg", "s3://bucket/g h.jpg",
            " i.jpg", "50%25.jpg", "file:///%FF.jpg"]  # fmt: skip
    expected = [
        f"{tmp_path}/a.jpg", f"{tmp_path}/sub/b.jpg", f"{tmp_path.parent}/c.jpg", "/d.jpg",
        "/e f.jpg", "s3://bucket/g h.jpg", f"{tmp_path}/ i.jpg", f"{tmp_path}/50%25.jpg",
        "file:///%FF.jpg",
    ]  # fmt: skip
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


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
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
        "word": "string", "large": "large_string", "tags": "list<element: string>", "small": "int8",
    }  # fmt: skip
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
        ("uri;label\na.jpg;x\n", r"needs a column `uri`; its columns are uri;label$"),
        (pa.table({"path": ["a"]}), r"needs a column `uri`; its columns are path$"),
        (pa.table({}), r"needs a column `uri`; its columns are none$"),
        (b"", r"not readable as a manifest: Empty CSV file"),
        ("uri,label\na.jpg,x,y\n", r"not readable as a manifest: .*Expected 2 columns, got 3"),
        ("uri,label\na.jpg,x\nb.jpg\n", r"Expected 2 columns, got 1"),
        (b"uri,label\na.jpg,caf\xe9\n", r"not readable as a manifest: .*[Ii]nvalid UTF-?8"),
        (b"uri,caf\xe9\na.jpg,x\n", r"not readable as a manifest: .*(utf-8|UTF-?8)"),
        (bytes(range(256)) * 50, r"not readable as a manifest|needs a column `uri`"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 999, r"not readable as a manifest|needs a column `uri`"),
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
