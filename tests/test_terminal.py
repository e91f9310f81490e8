"""What a person at a terminal sees: a table, and pictures where it shows some."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.images.contact_sheet import contact_sheet, in_terminal, sixel
from lookalike.images.preparing import thumbnail_jpeg
from lookalike.pipelines.terminal import protocol_of
from tests.conftest import picture

ROOT = Path(__file__).resolve().parent.parent


def on_a_terminal(arguments: list[str], **environment: str) -> str:
    """What the command writes to a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    usual = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TERM_PROGRAM", "KITTY_WINDOW_ID", "TMUX", "LC_TERMINAL")
    }
    running = subprocess.Popen(
        [sys.executable, "-m", "lookalike.pipelines.cli", *arguments],
        stdout=theirs,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**usual, "COLUMNS": "100", "PYTHONPATH": str(ROOT), **environment},
    )
    os.close(theirs)
    seen, until = b"", time.monotonic() + 120
    while time.monotonic() < until:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # so Linux tells that the other side is closed
                break
            if not part:
                break
            seen += part
    os.close(ours)
    try:
        _, told = running.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        running.kill()
        raise
    assert running.returncode == 0, told.decode()
    return seen.decode()


@pytest.mark.parametrize(
    ("environment", "mark"),
    [
        ({"TERM": "xterm-256color"}, ""),
        ({"TERM": "xterm-kitty"}, "\x1b_Ga=T,f=100"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "\x1b]1337;File=inline=1"),
        ({"TERM": "foot"}, "\x1bPq"),
    ],
    ids=["plain", "kitty", "iterm", "sixel"],
)
def test_a_table_and_pictures_where_they_can_be_shown(
    environment: dict[str, str], mark: str, indexed: tuple[Path, Path]
) -> None:
    store, pictures = indexed
    query = ["query", "--store", str(store), "--like", str(pictures / "first" / "1.png"), "-k", "3"]
    seen = on_a_terminal(query, **environment)
    assert re.search(r"score +image", re.sub(r"\x1b\[[0-9;]*m", "", seen))
    assert len(re.findall(r"\d\.\d{4}", seen)) == 3
    pictured = [one for one in ("\x1b_G", "\x1b]1337", "\x1bPq") if one in seen]
    assert pictured == [one for one in ("\x1b_G", "\x1b]1337", "\x1bPq") if mark.startswith(one)]
    if mark:
        assert mark in seen
        assert mark not in on_a_terminal([*query, "--thumbnails", "never"], **environment)


def test_what_is_piped_is_as_ever(indexed: tuple[Path, Path]) -> None:
    store, pictures = indexed
    name = str(pictures / "first" / "1.png")
    command = [sys.executable, "-m", "lookalike.pipelines.cli", "query", "--store", str(store)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-kitty"}
    found = subprocess.run(
        [*command, "--like", name, "-k", "2"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = found.stdout.splitlines()
    assert lines[0] == name
    assert re.fullmatch(rf"    1    1\.0000  {re.escape(name)}", lines[1])
    assert "\x1b" not in found.stdout


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, None),
        ({"TERM": "screen-256color", "TERM_PROGRAM": "iTerm.app"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "xterm", "LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "xterm-sixel"}, "sixel"),
        ({"TERM": "xterm", "TERM_PROGRAM": "mintty"}, "sixel"),
    ],
    ids=str,
)
def test_terminals_are_told_by_their_environment(
    environment: dict[str, str], expected: str | None
) -> None:
    assert protocol_of(environment) == expected


def small(seed: int) -> bytes:
    return thumbnail_jpeg(np.asarray(picture(seed, (300, 200))), 192)


def test_pictures_stand_side_by_side_over_their_numbers() -> None:
    png = contact_sheet([small(1), None, *map(small, range(2, 7))])
    with Image.open(io.BytesIO(png)) as sheet:
        assert (sheet.format, sheet.size) == ("PNG", (5 * 134, 2 * 146))
        pixels = np.asarray(sheet)
    assert (pixels[:80, 140:260] == 255).all(), "the second has no picture"
    assert pixels[:80, :120].std() > 1
    assert (pixels[130:140, :20] < 100).any(), "a number"
    with Image.open(io.BytesIO(contact_sheet([None]))) as sheet:
        assert sheet.size == (134, 146)


def test_kitty_and_iterm_get_the_png_whole() -> None:
    png = contact_sheet([*map(small, range(6))])
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", in_terminal(png, "kitty"))
    assert len(parts) > 1
    assert [control[-1] for control, _ in parts] == ["1"] * (len(parts) - 1) + ["0"]
    assert max(len(data) for _, data in parts) <= 4096
    assert base64.b64decode("".join(data for _, data in parts)) == png
    [data] = re.findall(r":([^:\a]*)\a", in_terminal(png, "iterm"))
    assert base64.b64decode(data) == png
    assert all(in_terminal(png, one).endswith("\n") for one in ("kitty", "iterm", "sixel"))


def test_sixels_are_the_pixels() -> None:
    """Drawn as the VT340's manual has it."""
    image = picture(3, (23, 17)).quantize(20)
    text = sixel(image)
    head = re.match(r'\x1bPq"1;1;23;17((?:#\d+;2;\d+;\d+;\d+)+)', text)
    assert head
    drawn = np.full((17, 23), -1)
    row = column = colour = 0
    for count, run, sign, chosen in re.findall(
        r"!(\d+)(.)|([?-~$-])|#(\d+)", text[head.end() :].removesuffix("\x1b\\")
    ):
        if chosen:
            colour = int(chosen)
        elif sign == "$":
            column = 0
        elif sign == "-":
            row, column = row + 6, 0
        else:
            wide = int(count or 1)
            for bit in range(6):
                if (ord(run or sign) - 63) >> bit & 1:
                    drawn[row + bit, column : column + wide] = colour
            column += wide
    np.testing.assert_array_equal(drawn, np.asarray(image))
