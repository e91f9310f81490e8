"""Which files a source takes, and what of them is no picture."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.errors import RequestError
from lookalike.images.decoder_process import answer_file
from lookalike.images.functions import Functions
from lookalike.images.limits import ImageLimits
from lookalike.images.rejections import IGNORED
from lookalike.pipelines.config import parse_config
from lookalike.sources.contents import Contents
from lookalike.sources.kinds import open_source
from lookalike.sources.looking_up import look_up
from lookalike.sources.selection import Selection
from tests.conftest import picture
from tests.test_unreachable import Nights, closed

NAMES = (
    "a.jpg",
    "b_thumb.jpg",
    "cache/c.jpg",
    "deep/cache/d.jpg",
    "raw/e.jpg",
    "deep/raw/f.jpg",
    ".hidden/g.jpg",
    "deep/.h.jpg",
    "é b/i.jpg",
)
RULES: list[tuple[Selection, set[str]]] = [
    (Selection(), set()),
    (Selection(("cache/",)), {"cache/c.jpg", "deep/cache/d.jpg"}),
    (Selection(("/raw",)), {"raw/e.jpg"}),
    (Selection(("deep/raw",)), {"deep/raw/f.jpg"}),
    (Selection(("**/raw/*.jpg",)), {"raw/e.jpg", "deep/raw/f.jpg"}),
    (Selection(("*.jpg", "!a.jpg")), {*NAMES} - {"a.jpg"}),
    (Selection(("*_thumb.*", "é b/")), {"b_thumb.jpg", "é b/i.jpg"}),
    (Selection(hidden=False), {".hidden/g.jpg", "deep/.h.jpg"}),
    (
        Selection(("deep/",), hidden=False),
        {".hidden/g.jpg", "deep/.h.jpg", "deep/cache/d.jpg", "deep/raw/f.jpg"},
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in NAMES:
            member = tarfile.TarInfo(f"./{name}" if name < "c" else name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    return tmp_path


@pytest.mark.parametrize(("selection", "left_out"), RULES)
def test_what_is_left_out(folder: Path, selection: Selection, left_out: set[str]) -> None:
    taken = {*NAMES} - left_out
    root, tar = folder / "p", folder / "t.tar"
    found = open_source(str(root), selection).files(print)
    assert {file.uri for file in found} == {str(root / name) for name in taken}
    found = open_source(str(root / "**"), selection).files(print)
    seen = {name for name in taken if not any(part[0] == "." for part in name.split("/"))}
    assert {file.uri for file in found} >= {str(root / name) for name in seen}
    members = open_source(str(tar), selection).files(print)
    assert {file.uri.partition("#")[2].removeprefix("./") for file in members} == taken
    for name in NAMES:  # and so it is told of names that the ledger has
        out = name in left_out
        assert bool(selection.rule_of_name(str(root / name), [str(root)])) == out
        assert bool(selection.rule_of_name(f"{tar}#{name}", [str(root)])) == out
        uri = f"s3://bucket/p/{name}?region=x".replace("é", "%C3%A9").replace(" ", "%20")
        assert bool(selection.rule_of_name(uri, ["s3://bucket/p?region=x"])) == out


def test_a_name_itself_is_taken(folder: Path) -> None:
    everything = Selection(("*",), hidden=False)
    [file] = open_source(str(folder / "p/.hidden/g.jpg"), everything).files(print)
    assert file.bytes == 1
    (folder / "m.csv").write_text("uri\np/a.jpg\np/cache/c.jpg\np/.hidden/g.jpg\n")
    found = open_source(str(folder / "m.csv"), Selection(("cache/",), hidden=False)).files(print)
    assert [file.uri for file in found] == [
        str(folder / "p/a.jpg"),
        str(folder / "p/.hidden/g.jpg"),
    ]


@pytest.mark.parametrize(
    "images",
    [
        {"exclude": "cache/"},
        {"exclude": [3]},
        {"exclude": [""]},
        {"exclude": ["!"]},
        {"hidden": 1},
        {"exclude": {"a": 1}},
    ],
)
def test_a_wrong_selection_is_told(images: dict[str, object]) -> None:
    config = {"features": [{"name": "a", "handle": "b"}], "images": images}
    with pytest.raises(RequestError, match=rf"images\.{next(iter(images))}: "):
        parse_config(config, [])


def test_leaving_out_what_was_known_removes_it(
    tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    folder = pictures(6, "p")
    pictures(4, "p/sub", 100)
    pictures(1, "p/.dot", 200)
    nights = Nights(tmp_path, [str(folder)])
    assert nights.night()["counts"]["embedded"] == 11
    nights.config += "images: {exclude: [/sub], hidden: false}\n"
    with closed(folder / "sub"):  # the user's word counts, whether it can be listed or not
        second = nights.night()
    assert (second["counts"]["removed"], second["counts"]["unknown"]) == (5, 0)
    removed = {row.uri: row for row in nights.ledger().values() if row.status == "removed"}
    assert {row.reason for row in removed.values()} == {"excluded"}
    assert removed[str(folder / "sub/000.jpg")].detail == "images.exclude: /sub"
    assert removed[str(folder / ".dot/000.jpg")].detail == "images.hidden: false"
    assert set(nights.answers()) == {str(folder / f"{n:03d}.jpg") for n in range(6)}
    assert nights.night()["name"] == second["name"]
    nights.config = nights.config.replace("/sub", "/other")
    assert nights.night()["changes"]["added"] == 4  # another request, and they are there again


APPLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(400)


@pytest.mark.parametrize(
    ("name", "data", "outcome"),
    [
        ("._a.jpg", APPLE, "system_file"),
        ("a.jpg", APPLE, "system_file"),  # by its content, under whatever name
        ("b.png", b"\x00\x05\x16\x00" + APPLE[4:], "system_file"),
        ("._c.jpg", b"whatever it is", "system_file"),
        ("._d.jpg", b"", "system_file"),
        (".DS_Store", b"\0\0\0\1Bud1", "system_file"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "system_file"),
        ("desktop.ini", b"[.ShellClassInfo]", "system_file"),
        (".nomedia", b"", "system_file"),
        ("@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", None, "system_file"),
        ("__MACOSX/._e.jpg", APPLE, "system_file"),
        ("zero.jpg", b"", "empty"),
        ("zero", b"", "empty"),
        ("notes.txt", b"some words", "no_image"),
        ("f.pdf", b"%PDF-1.7 ...", "no_image"),
        ("._picture.jpg", None, ""),  # a picture, whatever its name
    ],
)
def test_what_is_ignored_and_why(
    tmp_path: Path, name: str, data: bytes | None, outcome: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        picture(1).save(path, "JPEG")
    else:
        path.write_bytes(data)
    with Contents() as contents:
        inputs = Functions((), [(32, 32)])
        head, _ = answer_file(look_up(str(path)), contents, inputs, ImageLimits(), None)
    assert head.get("ignored", "") == outcome, head
    assert "rejected" not in head
    assert not outcome or (outcome in IGNORED and head["detail"])


def test_a_picture_that_lost_its_bytes_is_rejected(
    tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    """An empty file says nothing of pictures; one that was a picture counts among the rejects."""
    folder = pictures(4, "p")
    (folder / "zero.jpg").write_bytes(b"")
    nights = Nights(tmp_path, [str(folder)])
    assert nights.night()["counts"]["ignored"] == 1
    (folder / "000.jpg").write_bytes(b"")
    counts = nights.night()["counts"]
    assert (counts["ignored"], counts["rejected_by_reason"]) == (1, {"empty": 1})
    assert nights.night()["counts"]["rejected"] == 1
