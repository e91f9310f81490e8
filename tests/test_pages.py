"""docs/architecture.md and docs/extending.md say what the code does."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml

from lookalike.pipelines.cli import main
from lookalike.pipelines.config import parse_config
from tests.conftest import picture
from tests.documented import ROOT, blocks, script
from tests.test_architecture import imports_of, modules

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
_FOLDERS = r"^\| `(lookalike\.\w+)` \| [^|]+ \| ([^|]+) \|$"
_WALK = r"^\| \d+ \| `([\w.]+)` \| `(\w+)` \|"


def test_the_picture_is_what_its_script_draws() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "draw_architecture.py"))["draw"]()
    assert drawn == (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")


def test_folders_import_what_the_page_says() -> None:
    stated = dict(re.findall(_FOLDERS, ARCHITECTURE, re.MULTILINE))
    folders = {f"lookalike.{path.name}" for path in (ROOT / "lookalike").iterdir() if path.is_dir()}
    folders = {name for name in folders if any(one.startswith(f"{name}.") for one in modules())}
    assert set(stated) == folders
    for folder in folders - {"lookalike.transforms", "lookalike.pipelines"}:
        inside = [name for name in modules() if name.startswith(f"{folder}.")]
        imported = {
            ".".join(one.split(".")[:2]) for name in inside for one in imports_of(name)
        } & folders
        named = {f"lookalike.{one}" for one in re.findall(r"`(\w+)`", stated[folder])}
        assert imported - {folder} == named, folder


def calls_of(run: Callable[[], int], wanted: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those calls of a run, in all threads, that are of functions named by file and name."""
    found: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            called = (os.path.realpath(frame.f_code.co_filename), frame.f_code.co_name)
            if called in wanted:
                found.append(called)

    before = sys.getprofile()
    threading.setprofile(note)  # of threads that are begun from now on
    sys.setprofile(note)
    try:
        assert run() == 0
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]
    return found


def test_a_file_takes_the_way_that_the_page_shows(
    tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    way = re.findall(_WALK, ARCHITECTURE, re.MULTILINE)
    assert 20 <= len(way) <= 25
    stated = [(os.path.realpath(modules()[module]), function) for module, function in way]
    config, folder, store = tmp_path / "config.yaml", pictures(1), tmp_path / "store"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )

    def index() -> int:
        given = ["--config", str(config), "--images", str(folder), "--store", str(store)]
        return main(["index", *given])

    calls = calls_of(index, set(stated))
    assert set(stated) - set(calls) == set()
    at = 0  # the steps follow one another, whatever else calls the same functions before or between
    for step, (module, function) in zip(stated, way, strict=True):
        assert step in calls[at:], f"{module}.{function} is not called after the step before it"
        at = calls.index(step, at) + 1


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(lookalike(?:\.\w+)+)`", ARCHITECTURE))))
def test_modules_that_the_page_names_are_there(name: str) -> None:
    folders = {module.rpartition(".")[0] for module in modules()}
    assert name in modules() or name in folders


# --- docs/extending.md --------------------------------------------------------------------------

EXTENDING = ROOT / "docs" / "extending.md"


def test_the_page_on_extending_runs(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(6):
        picture(number).save(tmp_path / "pictures" / f"{number}.png")
    command = [sys.executable, "-c", script(EXTENDING)]
    found = os.pathsep.join([str(ROOT), str(ROOT / "examples" / "features")])
    environment = {**os.environ, "PYTHONPATH": found}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert sorted(lines[:6]) == [f"{n}.png {('even', 'odd')[n % 2]}" for n in range(6)]
    assert lines[6] == f"{4 * 4 * 12} components"
    measured = re.fullmatch(r"of the 10 nearest, (\S+) are among 100 candidates", lines[7])
    assert measured is not None
    assert 9 < float(measured[1]) <= 10
    assert lines[8:] == ["['1.done', '2.done', '3.done']"]


def test_the_config_of_the_page_on_extending_is_one() -> None:
    [(_, text)] = blocks(EXTENDING, "yaml")
    assert [one.weight for one in parse_config(yaml.safe_load(text), []).features] == [0.7, 0.3]


@pytest.mark.parametrize(
    "name",
    sorted(
        set(
            re.findall(
                r"`((?:lookalike|pipelines|tests|docs)/[\w/.]+)`",
                EXTENDING.read_text(encoding="utf-8"),
            )
        )
    ),
)
def test_files_that_the_page_on_extending_names_are_there(name: str) -> None:
    assert (ROOT / name).exists() or name == "lookalike/sources/json_lines.py"


# --- all pages ----------------------------------------------------------------------------------

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def anchors(page: Path) -> set[str]:
    """What links to the headings of a page are named, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in (link for link in links if not re.match(r"\w+:", link)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
