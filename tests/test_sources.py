from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.errors import RequestError
from lookalike.reconcile.compared import candidates
from lookalike.records import SourceFile
from lookalike.sources.kinds import metadata_schema, open_source
from lookalike.sources.listing import listing_schema, write_listing
from lookalike.sources.looking_up import look_up
from lookalike.store import storage
from lookalike.store.columns import merge_columns
from lookalike.store.objects import open_store
from tests.scanning import compare, read_files

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes files below a folder; each holds its own name."""

    def make(*names: str | bytes) -> Path:
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        for name in names:
            path = Path(os.fsdecode(os.path.join(os.fsencode(root), os.fsencode(name))))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(name))
        return root

    return make


def listed(spec: str | Path, notices: list[str] | None = None) -> list[SourceFile]:
    return list(
        open_source(str(spec)).files(notices.append if notices is not None else pytest.fail)
    )


def names(spec: str | Path, root: Path, notices: list[str] | None = None) -> list[str]:
    """Listed paths relative to `root`, in the order of the listing."""
    return [os.path.relpath(file.uri, root) for file in listed(spec, notices)]


# --- folders ----------------------------------------------------------------------------------


def test_a_folder_is_listed_whole_and_sorted(tree: Tree) -> None:
    root = tree("b/2.jpg", "b/10.jpg", "a/deep/er/x.png", ".hidden", ".h/y", "z.json", "c")
    assert names(root, root) == [
        ".h/y",
        ".hidden",
        "a/deep/er/x.png",
        "b/10.jpg",
        "b/2.jpg",
        "c",
        "z.json",
    ]


def test_each_file_has_its_absolute_name_size_and_version(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree("a.jpg")
    monkeypatch.chdir(root.parent)
    info = (root / "a.jpg").stat()
    expected = SourceFile(str(root / "a.jpg"), info.st_size, str(info.st_mtime_ns))
    assert listed("root") == listed("root/") == listed("./root/a.jpg") == [expected]


def test_odd_names_are_listed_and_can_be_read_again(tree: Tree) -> None:
    odd = [
        "with space.jpg",
        "é.jpg",
        "e\u0301.jpg",
        "new\nline.jpg",
        "%41%.jpg",
        "#?.jpg",
        "[x].jpg",
        "file:x.jpg",
        "s3:/x.jpg",
        "-x.jpg",
        " ",
        b"caf\xe9.jpg",
        b"\xff\xfe%20",
    ]
    root = tree(*odd)
    found = {storage.read_bytes(file.uri) for file in listed(root)}
    assert found == {os.fsencode(name) for name in odd}
    for file in listed(root):
        assert look_up(file.uri) == file
        assert pa.array([file.uri]).to_pylist() == [file.uri]


def test_a_folder_whose_name_is_not_utf8(tree: Tree) -> None:
    root = tree(b"caf\xe9/a.jpg")
    [file] = listed(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
    assert file.uri == f"file://{root}/caf%E9/a.jpg"
    assert [other.uri for other in listed(f"file://{root}/caf%E9")] == [file.uri]


def test_an_empty_folder_has_no_files(tree: Tree) -> None:
    assert listed(tree()) == []


def test_links_to_files_are_followed_under_their_own_names(tree: Tree) -> None:
    root = tree("real.jpg")
    (root / "link.jpg").symlink_to("real.jpg")
    link, real = listed(root)
    assert Path(link.uri).name == "link.jpg"
    assert (link.bytes, link.version, link.problem) == (real.bytes, real.version, "")


def test_links_that_lead_nowhere_are_rows_with_a_problem(tree: Tree) -> None:
    root = tree()
    (root / "broken.jpg").symlink_to("absent.jpg")
    (root / "circle.jpg").symlink_to("circle.jpg")
    found = {Path(file.uri).name: file for file in listed(root)}
    assert "No such file" in found["broken.jpg"].problem
    assert "symbolic links" in found["circle.jpg"].problem
    assert {file.bytes for file in found.values()} == {-1}


def test_what_a_glob_takes_for_a_lost_folder(tree: Tree) -> None:
    """A link that leads nowhere may have been a folder in which names match; no picture can."""
    root = tree("a/x.jpg")
    (root / "lost").symlink_to("/nowhere/folder")
    (root / "lost.jpg").symlink_to("/nowhere/lost.jpg")
    for pattern in ("*/*.jpg", "*/**/*.jpg", "*/x.jpg"):
        found = {Path(file.uri).name: file.hides for file in listed(root / pattern)}
        assert found == {"x.jpg": None, "lost": f"{root}/lost/"}, pattern
    found = {Path(file.uri).name: file.hides for file in listed(root / "*.jpg")}
    assert found == {"lost.jpg": f"{root}/lost.jpg"}


def test_links_to_folders_are_named_and_not_entered(tree: Tree, tmp_path: Path) -> None:
    root = tree("a/x.jpg")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "y.jpg").write_bytes(b"y")
    (root / "a" / "up").symlink_to(root)
    (root / "out").symlink_to(tmp_path / "elsewhere")
    notices: list[str] = []
    assert names(root, root, notices) == ["a/x.jpg"]
    assert [f"{root}/a/up is a link" in notices[0], f"{root}/out is a link" in notices[1]] == [
        True
    ] * 2
    assert all("--images" in notice for notice in notices)
    # named as a source of its own it is entered
    assert names(root / "out", root) == ["out/y.jpg"]


def test_pipes_and_sockets_are_never_opened(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree("a.jpg")
    os.mkfifo(root / "pipe.jpg")
    monkeypatch.chdir(root)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        found = {Path(file.uri).name: file.problem for file in listed(root)}
        assert found == {
            "a.jpg": "",
            "pipe.jpg": "not a regular file",
            "socket.jpg": "not a regular file",
        }
        for name in ("pipe.jpg", "socket.jpg"):
            assert look_up(str(root / name)).problem == "not a regular file"
            with pytest.raises(RequestError, match=f"{name}: neither a file nor a folder"):
                open_source(name)


@pytest.mark.parametrize("pattern", ["", "**/*.jpg"])
def test_a_folder_that_goes_away_is_a_row_with_a_problem(tree: Tree, pattern: str) -> None:
    root = tree("a/x.jpg", "b/y.jpg", "c/z.jpg")
    stream = open_source(str(root / pattern)).files(pytest.fail)
    first = next(stream)
    (root / "b" / "y.jpg").unlink()
    (root / "b").rmdir()
    rest = list(stream)
    assert [first.problem, rest[-1].problem] == ["", ""]
    assert [(file.uri, file.problem) for file in rest[:-1]] == [
        (str(root / "b"), "folder not readable: No such file or directory")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_an_unreadable_folder_is_a_row_with_a_problem(tree: Tree) -> None:
    root = tree("a/x.jpg", "b/y.jpg")
    (root / "a").chmod(0)
    try:
        problems = [file.problem for file in listed(root)]
    finally:
        (root / "a").chmod(0o755)
    assert problems == ["folder not readable: Permission denied", ""]


# --- globs ------------------------------------------------------------------------------------

FILES = ("a/1.jpg", "a/2.png", "b/1.jpg", "b/deep/3.jpg", "b/deep/.hidden.jpg", ".h/4.jpg", "5.jpg")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["5.jpg"]),
        ("*/1.jpg", ["a/1.jpg", "b/1.jpg"]),
        ("[ab]/?.png", ["a/2.png"]),
        ("b*", ["b/1.jpg", "b/deep/.hidden.jpg", "b/deep/3.jpg"]),  # a folder: all that is below
        ("**/*.jpg", ["5.jpg", "a/1.jpg", "b/1.jpg", "b/deep/3.jpg"]),
        ("**/deep", ["b/deep/.hidden.jpg", "b/deep/3.jpg"]),
        ("b/**/3.jpg", ["b/deep/3.jpg"]),
        ("**/b/**/*.jpg", ["b/1.jpg", "b/deep/3.jpg"]),
        (
            "**",
            [
                ".h/4.jpg",
                "5.jpg",
                "a/1.jpg",
                "a/2.png",
                "b/1.jpg",
                "b/deep/.hidden.jpg",
                "b/deep/3.jpg",
            ],
        ),
        ("nothing*", []),
    ],
)
def test_globs(tree: Tree, pattern: str, expected: list[str]) -> None:
    root = tree(*FILES)
    assert names(root / pattern, root) == expected


def test_globs_do_not_enter_links_to_folders(tree: Tree) -> None:
    root = tree("a/x.jpg")
    (root / "a" / "up").symlink_to(root)
    notices: list[str] = []
    assert names(root / "**" / "*.jpg", root, notices) == ["a/x.jpg"]
    assert names(root / "a" / "*", root, notices) == ["a/x.jpg"]
    assert len(notices) == 2
    assert all(f"{root}/a/up is a link to a folder" in notice for notice in notices)


def test_globs_over_names_that_are_not_utf8(tree: Tree) -> None:
    root = tree(b"caf\xe9/1.jpg", b"caf\xe9/2.png")
    for pattern in ("*/*.jpg", "**/*.jpg"):
        assert [file.uri for file in listed(root / pattern)] == [f"file://{root}/caf%E9/1.jpg"]


def test_an_existing_name_is_no_pattern(tree: Tree) -> None:
    root = tree("[2024]/a.jpg", "2/b.jpg", "what?.jpg")
    assert names(root / "[2024]", root) == ["[2024]/a.jpg"]
    assert names(root / "what?.jpg", root) == ["what?.jpg"]


# --- requests that are wrong ------------------------------------------------------------------


def test_what_does_not_exist_is_refused_by_name(tree: Tree) -> None:
    root = tree("a.jpg")
    with pytest.raises(RequestError, match=r"root/absent: no such file or folder"):
        open_source(str(root / "absent"))
    with pytest.raises(RequestError, match=r"a.jpg/b: .*Not a directory"):
        open_source(str(root / "a.jpg" / "b"))
    with pytest.raises(RequestError, match="embedded null"):
        open_source("a\0b")
    with pytest.raises(RequestError, match="an empty source was given; name a folder"):
        open_source("")


# --- several sources --------------------------------------------------------------------------


def test_overlapping_sources_count_each_file_once(tree: Tree, tmp_path: Path) -> None:
    root = tree("a/1.jpg", "a/2.jpg", "b/3.jpg")
    (root.parent / "m.csv").write_text("uri,label\nroot/a/1.jpg,one\nroot/a/../a/2.jpg,two\n")
    sources = [
        open_source(str(spec))
        for spec in (root.parent / "m.csv", root, root / "**" / "*.jpg", root / "a")
    ]
    schema = listing_schema(metadata_schema(sources))
    stream = (file for source in sources for file in source.files(pytest.fail))
    listing = write_listing(open_store(tmp_path), "listing", stream, schema)
    assert listing.rows == 2 + 3 + 3 + 2
    metadata = metadata_schema(sources)
    compare(open_store(tmp_path), listing, [], "compared", scanned_ns=None, metadata=metadata)
    found = candidates(open_store(tmp_path), "compared")
    rows = [file for path in found.parts for file in read_files(tmp_path / path)]
    labels = {os.path.relpath(file.uri, root): file.metadata["label"] for file in rows}
    assert len(rows) == 3
    assert labels == {"a/1.jpg": "one", "a/2.jpg": "two", "b/3.jpg": None}


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.int64(), pa.int64(), pa.int64()),
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.int64(), pa.string(), pa.string()),
        (pa.bool_(), pa.int64(), pa.string()),
        (pa.null(), pa.int64(), pa.int64()),
        (pa.date32(), pa.string(), pa.string()),
    ],
)
def test_types_that_differ_are_unified(
    one: pa.DataType, other: pa.DataType, both: pa.DataType
) -> None:
    for kinds in ((one, other), (other, one)):
        schemas = [pa.schema([("label", kind)]) for kind in kinds]
        assert merge_columns(schemas) == pa.schema([("label", both)])


def test_two_manifests_that_disagree_are_listed_together(tree: Tree, tmp_path: Path) -> None:
    root = tree("1.jpg", "2.jpg")
    (root / "text.csv").write_text("uri,n,label\n1.jpg,1.5,abc\n")
    pq.write_table(pa.table({"uri": ["2.jpg"], "n": [2**60], "label": [7]}), root / "n.parquet")
    sources = [open_source(str(root / name)) for name in ("text.csv", "n.parquet")]
    schema = listing_schema(metadata_schema(sources))
    stream = (file for source in sources for file in source.files(pytest.fail))
    [part] = write_listing(open_store(tmp_path), "listing", stream, schema).parts
    found = [dict(file.metadata) for file in read_files(tmp_path / part)]
    assert found == [{"n": 1.5, "label": "abc"}, {"n": float(2**60), "label": "7"}]


# --- remote, on pyarrow's in-memory file system -----------------------------------------------


def test_remote_folders_and_globs(tmp_path: Path) -> None:
    root = f"mock://{tmp_path.name.replace('_', '-')}"
    fs, _ = storage.filesystem(root)
    for name in ("a/1.jpg", "a/2.png", "b c/1.jpg", "b c/deep/3.jpg", "[x]/4.jpg"):
        fs.create_dir(f"data/{name}".rpartition("/")[0], recursive=True)
        with fs.open_output_stream(f"data/{name}") as stream:
            stream.write(name.encode())

    def contents(spec: str) -> list[str]:
        return [storage.read_bytes(file.uri).decode() for file in listed(spec)]

    everything = ["[x]/4.jpg", "a/1.jpg", "a/2.png", "b c/1.jpg", "b c/deep/3.jpg"]
    assert contents(f"{root}/data") == contents(f"{root}/data/") == everything
    assert contents(f"{root}/data/*/1.jpg") == ["a/1.jpg", "b c/1.jpg"]
    assert contents(f"{root}/data/**/*.jpg") == [name for name in everything if ".jpg" in name]
    assert contents(f"{root}/data/b*") == ["b c/1.jpg", "b c/deep/3.jpg"]
    assert contents(f"{root}/data/b c/1.jpg") == ["b c/1.jpg"]
    assert listed(f"{root}/data/a/1.jpg")[0].bytes == len("a/1.jpg")
    assert look_up(f"{root}/data/absent.jpg").problem == "no such file (absent)"
    with pytest.raises(RequestError, match="data/absent: no such file or folder"):
        open_source(f"{root}/data/absent")
