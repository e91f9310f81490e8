"""`lookalike find`: a folder's index in the cache, made when needed, and only then."""

from __future__ import annotations

import json
import os
from pathlib import Path

import apache_beam as beam
import pytest

from lookalike.cache_folder import cache_folder
from lookalike.pipelines import find
from lookalike.pipelines.cli import main
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from tests.conftest import picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (made := tmp_path / "pictures" / "below").mkdir(parents=True)
    for number in range(6):
        picture(number).save(made / f"{number}.png")
    return tmp_path / "pictures"


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[list[str], str]:
    """File names of the answer, and what was said."""
    status = main(["find", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    names = [Path(json.loads(line)["uri"]).name for line in captured.out.splitlines()]
    return names, captured.err


@pytest.mark.slow
def test_a_folder_is_indexed_once_and_when_it_changes(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = tmp_path / "asked.png"
    picture(3).save(asked)
    names, said = ask(capsys, asked, folder, "-k", 2)
    assert names[0] == "3.png"
    assert len(names) == 2
    assert "indexing" in said
    store = open_store(find.store_of(folder) / "store")
    first = snapshot.current(store)
    assert not snapshot.files_of(snapshot.read_manifest(store), "report")  # nobody reads it
    assert main(["verify", "--store", store.name]) == 0
    capsys.readouterr()

    monkeypatch.chdir(folder)  # the same folder by another name
    names, said = ask(capsys, asked, "below/..", "-k", 9, "--exclude-self")
    assert "indexing" not in said
    assert (len(names), snapshot.current(store)) == (5 if "3.png" not in names else 6, first)

    (folder / "below" / "3.png").unlink()
    picture(3, (90, 70)).save(folder / "new.png")
    names, said = ask(capsys, asked, folder, "-k", 9)
    assert names[0] == "new.png"
    assert "3.png" not in names
    assert "indexing" in said
    assert snapshot.current(store) != first
    names, said = ask(capsys, asked, folder, "-k", 1, "--refresh")
    assert names == ["new.png"]
    assert "indexing" in said

    for path in (folder / "below").iterdir():  # most of it goes, as folders of people's do
        path.unlink()
    assert ask(capsys, asked, folder)[0] == ["new.png"]


@pytest.mark.slow
def test_an_index_that_was_cut_short_is_made_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = find.store_of(folder)
    place.mkdir(parents=True)
    (place / "folder.sha256").write_text(find._listing([])[0])
    names, said = ask(capsys, folder / "below" / "1.png", folder, "-k", 1)
    assert names == ["1.png"]
    assert "indexing" in said


def test_what_is_wrong_is_told_with_status_2(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing").mkdir()
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    (tmp_path / "text.jpg").write_text("no picture")
    for arguments, message in (
        ((folder / "below" / "1.png", tmp_path / "none"), "no such folder"),
        ((folder / "below" / "1.png", folder / "below" / "1.png"), "find looks in a folder"),
        ((folder / "below" / "1.png", tmp_path / "empty"), "empty"),
        ((tmp_path / "absent.jpg", folder), "absent.jpg"),
        ((tmp_path / "text.jpg", ""), "no such folder"),
        ((folder / "below" / "1.png", cache.parent), f"the cache {cache}, where find keeps"),
        ((folder / "below" / "1.png", tmp_path / "nothing"), "no files there"),
        ((tmp_path / "text.jpg", folder), "text.jpg: not usable as a query"),
        ((folder / "below" / "1.png", folder, "-k", "0"), "-k must be at least 1"),
        ((folder / "below" / "1.png", folder, "--html", "/no/such/a.html"), "no such folder: /no/"),
        ((folder / "below" / "1.png", folder, "--crop", "1,2"), "crop: needs x, y, w, h"),
    ):
        assert main(["find", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert message in captured.err.splitlines()[-1]
        assert not captured.out
    assert not find.store_of(folder).exists(), "nothing was indexed for it"


def test_where_no_index_can_be_kept_is_told(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["find", str(folder / "below" / "1.png"), str(folder)]) == 2
    said = capsys.readouterr().err
    assert "cannot be kept there: not a directory; set XDG_CACHE_HOME" in said.splitlines()[-1]


@pytest.mark.slow
def test_a_folder_that_was_emptied_is_said_to_be_empty(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = tmp_path / "asked.png"
    picture(3).save(asked)
    ask(capsys, asked, folder, "-k", 1)
    for path in (folder / "below").iterdir():
        path.unlink()
    assert main(["find", str(asked), str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"lookalike: {folder}: no files there; find looks in a folder of pictures\n"
    )


def test_folders_are_told_apart() -> None:
    places = {find.store_of(Path(os.path.abspath(name))) for name in ("/a", "/b", "/a b", "/a/b")}
    assert len(places) == 4


def test_a_small_folder_starts_no_pipeline(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker is this process, for pictures as for everything else."""
    monkeypatch.setattr(beam.Pipeline, "run", lambda pipeline: pytest.fail("one was started"))
    names, said = ask(capsys, folder / "below" / "2.png", folder, "-k", 1)
    assert names == ["2.png"]
    assert "embed: 6 files in" in said
