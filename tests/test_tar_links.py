from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lookalike.sources.contents import Contents, claimed_name
from lookalike.sources.locating import Locator
from tests.tar_files import Files, listed, names, pack, write_tar

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(write_tar, tmp_path)


def contents(path: Path) -> dict[str, bytes | str]:
    """What each name holds, or its problem."""
    with Contents() as reader:
        return {
            file.uri.partition("#")[2]: file.problem or reader.read(file) for file in listed(path)
        }


@pytest.mark.parametrize("name", ["s.tar", "s.tgz"])
@pytest.mark.parametrize("fmt", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_link_is_the_file_that_it_stands_for(
    write: Write, tmp_path: Path, name: str, fmt: int
) -> None:
    long, odd = "n" * 150 + "/é.jpg", b"caf\xe9.jpg"
    shard: Files = [
        ("d/a.jpg", b"one"),
        ("hard.jpg", b"->d/a.jpg"),
        ("d/sub/soft.jpg", b"~>../a.jpg"),
        ("d/same.jpg", b"~>a.jpg"),
        ("again.jpg", b"->hard.jpg"),
        ("round.jpg", b"~>d/sub/../.././d/a.jpg"),
        ("early.jpg", b"~>late.jpg"),
        ("earlier.jpg", b"~>early.jpg"),
        (long, b"long"),
        ("to long.jpg", b"->" + long.encode()),
        (os.fsdecode(odd), b"odd"),
        ("to odd.jpg", b"->" + odd),
        ("late.jpg", b"late"),
        ("empty.jpg", b""),
        ("to empty.jpg", b"->empty.jpg"),
    ]
    path = write_tar(tmp_path, pack(shard, fmt), name)
    one = ["d/a.jpg", "hard.jpg", "d/sub/soft.jpg", "d/same.jpg", "again.jpg", "round.jpg"]
    late = ["early.jpg", "earlier.jpg", "late.jpg"]
    assert contents(path) == {
        **dict.fromkeys(one, b"one"),
        **dict.fromkeys(late, b"late"),
        long: b"long",
        "to long.jpg": b"long",
        "caf%E9.jpg": b"odd",
        "to odd.jpg": b"odd",
        "empty.jpg": b"",
        "to empty.jpg": b"",
    }
    for file in listed(path):  # as a page of results finds them again
        assert Locator().find(file.uri) == file


def test_a_link_to_a_name_that_comes_again_is_the_last_before_it(write: Write) -> None:
    shard: Files = [
        ("a.jpg", b"1"),
        ("x.jpg", b"->a.jpg"),
        ("a.jpg", b"22"),
        ("y.jpg", b"->a.jpg"),
        ("x.jpg", b"~>a.jpg"),
        ("x.jpg", b"->a.jpg"),
    ]
    path = write(shard)
    files = listed(path)
    assert names(files)[:5] == ["a.jpg", "x.jpg", "a.jpg@2048", "y.jpg", "x.jpg@2048"]
    assert list(contents(path).values()) == [b"1", b"1", b"22", b"22", b"22", b"22"]
    claimed = [claimed_name(file).partition("#")[2] for file in files]
    assert claimed == ["a.jpg", "x.jpg", "a.jpg", "y.jpg", "x.jpg", "x.jpg"]


def test_names_that_begin_with_a_dot_and_a_slash(write: Write) -> None:
    shard: Files = [
        ("./d/a.jpg", b"1"),
        ("./d/b.jpg", b"~>a.jpg"),
        ("./c.jpg", b"->./d/a.jpg"),
        ("./e.jpg", b"~>d/a.jpg"),
        ("f.jpg", b"->d/a.jpg"),
    ]
    assert set(contents(write(shard)).values()) == {b"1"}


def test_a_link_from_the_root_is_looked_for_in_the_tar(write: Write) -> None:
    for prefix in ("", "./", "/"):
        shard: Files = [(f"{prefix}d/a.jpg", b"1"), (f"{prefix}b.jpg", b"~>/d/a.jpg")]
        assert set(contents(write(shard)).values()) == {b"1"}


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        (b"->absent.jpg", "a link to 'absent.jpg', which is no file in the tar"),
        (b"~>/etc/passwd", "a link to '/etc/passwd', which is no file in the tar"),
        (b"~>../../../etc/passwd", "a link to '../../../etc/passwd', which is no file in the tar"),
        (b"->/etc/passwd", "a link to '/etc/passwd', which is no file in the tar"),
        (b"~>folder", "a link to 'folder', which is no file in the tar"),
        (b"~>", "a link to '.', which is no file in the tar"),
        (b"->", "a link to '.', which is no file in the tar"),
        (b"~>x.jpg", "a link to 'x.jpg', which is no file in the tar"),  # itself
        (b"~>y.jpg", "a link to 'y.jpg', which is no file in the tar"),  # and back
        (b"->device", "a link to 'device', which cannot be read"),
        (b"~>sparse.jpg", "a link to 'sparse.jpg', which cannot be read"),
    ],
)
def test_a_link_that_leads_nowhere_has_its_reason(
    write: Write, tmp_path: Path, link: bytes, problem: str
) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, kind in (
            ("folder", tarfile.DIRTYPE),
            ("device", tarfile.CHRTYPE),
            ("sparse.jpg", tarfile.GNUTYPE_SPARSE),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
    head = output.getvalue()[: 3 * 512]
    path = write(head + pack([("x.jpg", link), ("y.jpg", b"~>x.jpg"), ("a.jpg", b"1")]))
    found = contents(path)
    assert found["x.jpg"] == problem
    assert found["device"] == "not a regular file"
    assert "folder" not in found
    assert found["a.jpg"] == b"1"
    assert str(found["y.jpg"]).startswith("a link to 'x.jpg', which ")


def test_links_within_samples(write: Write) -> None:
    """A link's metadata are those beside the link; a sidecar may be a link, as of equal labels."""
    shard: Files = [
        ("a.jpg", b"1"),
        ("a.json", b'{"c": "first"}'),
        ("a.cls", b"7"),
        ("b.jpg", b"->a.jpg"),
        ("b.json", b'{"c": "second"}'),
        ("c.jpg", b"3"),
        ("c.cls", b"->a.cls"),
        ("c.json", b"~>b.json"),
        ("d.cls", b"->c.cls"),
        ("d.jpg", b"4"),
        ("e.jpg", b"~>z.jpg"),
        ("e.json", b'{"c": "fifth"}'),
        ("z.jpg", b"5"),
    ]
    path = write(shard)
    files = listed(path)
    assert {
        name: (file.metadata.get("c"), file.metadata.get("cls"))
        for name, file in zip(names(files), files, strict=True)
    } == {
        "a.jpg": ("first", 7),
        "b.jpg": ("second", None),
        "c.jpg": ("second", 7),
        "d.jpg": (None, 7),
        "e.jpg": ("fifth", None),
        "z.jpg": (None, None),
    }
    assert contents(path) == {
        "a.jpg": b"1",
        "b.jpg": b"1",
        "c.jpg": b"3",
        "d.jpg": b"4",
        "e.jpg": b"5",
        "z.jpg": b"5",
    }


def test_sidecars_that_are_links_and_cannot_be_followed_are_told(write: Write) -> None:
    shard: Files = [("a.cls", b"7"), ("a.jpg", b"1"), ("b.cls", b"->a.cls"), ("b.jpg", b"2")]
    notices: list[str] = []
    files = listed(write(shard, "s.tgz"), notices)
    assert names(files) == ["a.jpg", "b.cls", "b.jpg"]
    assert "b.cls: it is a link, which is not followed in a gzipped tar" in notices[0]
    files = listed(
        write([("a.json", b"~>b.json"), ("a.jpg", b"1"), *[("b.json", b"{}"), ("b.jpg", b"2")]]),
        notices,
    )
    assert names(files) == ["a.jpg", "b.jpg", "a.json"]
    assert "a.json: what it links to does not lie before it" in notices[1]


def test_very_many_links(write: Write) -> None:
    count = 5000
    forward: Files = [(f"l{i}.jpg", f"->l{i - 1}.jpg".encode()) for i in range(1, count)]
    files = listed(write([("l0.jpg", b"x"), *forward]))
    assert len(files) == count
    assert {(file.offset, file.problem) for file in files} == {(512, "")}
    files = listed(write([*reversed(forward), ("l0.jpg", b"x")]))
    assert len(files) == count
    assert {file.problem for file in files} == {""}


@pytest.mark.skipif(not shutil.which("tar"), reason="there is no tar")
def test_as_gnu_tar_packs_a_folder_with_links(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"1" * 2000)
    (folder / "a.json").write_text(json.dumps({"c": "first"}))
    os.link(folder / "a.jpg", folder / "sub" / "b.jpg")
    (folder / "sub" / "c.jpg").symlink_to("../a.jpg")
    (folder / "out.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    for fmt in ("gnu", "pax", "ustar", "v7"):
        path = tmp_path / f"{fmt}.tar"
        done = ["tar", f"--format={fmt}", "--sort=name", "-C", folder, "-cf", path, "."]
        subprocess.run(done, check=True)
        found = contents(path)
        assert found.pop("./out.jpg") == (
            f"a link to '{tmp_path}/elsewhere.jpg', which is no file in the tar"
        )
        assert found == dict.fromkeys(["./a.jpg", "./sub/b.jpg", "./sub/c.jpg"], b"1" * 2000)
