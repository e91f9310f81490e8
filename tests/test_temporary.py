"""The command's own folder for temporary files, and a place for it that is no use."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lookalike.errors import RequestError
from lookalike.pipelines import temporary
from lookalike.pipelines.ending import AGAIN, WRONG_REQUEST, status_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for temporary files, in the environment."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_what_is_left_in_it_goes_with_it(place):
    with temporary.private(required=True):
        (only,) = place.iterdir()
        assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(only)
        tempfile.mkdtemp()
        script = "import tempfile; tempfile.mkstemp(prefix='__autograph_generated_file')"
        subprocess.run([sys.executable, "-c", script], check=True)
        assert len(list(only.iterdir())) == 2
    assert list(place.iterdir()) == []
    assert os.environ["TMPDIR"] == str(place)
    assert tempfile.gettempdir() == str(place)


def test_it_goes_when_the_work_fails_and_before_a_process_ends_at_once(place):
    with pytest.raises(KeyError), temporary.private(required=True):
        raise KeyError
    assert list(place.iterdir()) == []
    with temporary.private(required=True):
        temporary.remove()
        assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing", "there is no such folder"),
        ("missing/deep", "there is no such folder"),
        ("file", "it is not a folder"),
        ("file/below", "it is not a folder"),
        ("x" * 300, "the name is too long"),
        ("circle", "its links lead in a circle"),
    ],
)
def test_a_place_that_cannot_be_one_is_a_wrong_request(place, monkeypatch, name, why):
    (place / "file").touch()
    (place / "circle").symlink_to(place / "circle")
    monkeypatch.setenv("TMPDIR", str(place / name))
    with pytest.raises(RequestError) as caught, temporary.private(required=True):
        pytest.fail("work began")
    assert str(caught.value) == (
        f"the temporary folder {place / name}: {why}; make one that can be written, or name "
        "another by TMPDIR"
    )
    assert status_of(caught.value) == WRONG_REQUEST
    with temporary.private(required=False):  # others go on as they can
        assert os.environ["TMPDIR"] == str(place / name)


def test_a_full_place_may_have_room_later(place, monkeypatch):
    monkeypatch.setattr(temporary, "_LEAST", 1 << 80)
    full = pytest.raises(OSError, match=r"is full \(.* free of .*\); make room, or name")
    with full as caught, temporary.private(required=True):
        pytest.fail("work began")
    assert status_of(caught.value) == AGAIN
    assert list(place.iterdir()) == []


def test_that_there_is_room_is_tried_and_not_only_asked(place):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        failed = pytest.raises(OSError, match=f"^the temporary folder {place}: ")
        with failed as caught, temporary.private(required=True):
            pytest.fail("work began")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status_of(caught.value) == AGAIN
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["index", "--images", "p", "--store", "s"], ["plan", "--images", "p"]]
)
def test_the_command_says_so_in_one_line_before_work_begins(pictures, tmp_path, arguments):
    pictures(1, "p")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "missing")}
    command = [sys.executable, "-m", "lookalike.pipelines.cli", *arguments]
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr.startswith(f"lookalike: the temporary folder {tmp_path}/missing: there is")
    assert found.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()
