"""What a person sees on a terminal, and a scheduler in its log, while a stage runs."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from lookalike.pipelines.progress import Progress, _Pace

ROOT = Path(__file__).resolve().parent.parent
NAME = "[red]a[/red] :smile: \x1b[31m" + "x" * 100
SHOWN = "[red]a[/red] :smile: \\u001b[31m" + "x" * 100

# A stage of 8 files that ends once it was looked at five times; the fourth time it does `{fourth}`.
SCRIPT = """
import os, signal, sys, threading
from lookalike.pipelines import progress

progress._REFRESH_S = progress._LINE_EVERY_S = 0.02
shown, seen, looked = progress.Progress(), threading.Event(), []

def done():
    looked.append(1)
    if len(looked) == 4:
        {fourth}
    if len(looked) > 4:
        seen.set()
    return min(8, len(looked))

with shown.stage("embed", "files", 8, done):
    shown.say({name!r})
    print("a result", flush=True)
    assert seen.wait(60)
    {last}
"""


class Screen:
    """What lies on a terminal after some output; fails on what it does not know."""

    CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")

    def __init__(self, columns: int, output: str) -> None:
        self.columns, self.lines, self.row, self.column = columns, [""], 0, 0
        self.cursor = True
        at = 0
        while at < len(output):
            if found := self.CONTROL.match(output, at):
                self._control(*found.groups())
                at = found.end()
                continue
            self._put(output[at])
            at += 1

    def _control(self, numbers: str, what: str) -> None:
        if what == "K":
            assert numbers == "2"
            self.lines[self.row] = ""
        elif what == "A":
            self.row -= int(numbers or 1)
            assert self.row >= 0
        elif numbers == "?25":
            self.cursor = what == "h"
        else:
            assert what == "m"

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n" or self.column == self.columns:
            self.row += 1
            self.column = 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        if character >= " ":
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1
        else:
            assert character in "\r\n"


def run(columns=0, *, fourth="pass", last="pass", **environment):
    """Exit status, stdout and stderr, which is a terminal if it has columns."""
    reader, writer = os.openpty() if columns else os.pipe()
    if columns:
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    known = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(name=NAME, fourth=fourth, last=last)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=writer,
        env={**known, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "TERM": "xterm", **environment},
    )
    os.close(writer)
    output = bytearray()
    try:
        while data := os.read(reader, 1 << 16):
            output += data
    except OSError:  # a terminal whose other end is closed
        pass
    os.close(reader)
    result, _ = child.communicate()
    return child.returncode, result.decode(), output.decode()


def wrapped(line: str, columns: int) -> list[str]:
    return [line[at : at + columns] for at in range(0, len(line), columns)]


@pytest.mark.parametrize("columns", [100, 30])
def test_a_terminal_has_a_bar_of_one_line_and_keeps_what_is_said(columns):
    status, result, output = run(columns)
    assert status == 0, output
    assert result == "a result\n"
    screen = Screen(columns, output)
    *kept, last, rest = screen.lines
    assert kept == wrapped(SHOWN, columns)
    assert re.fullmatch(r"embed: 8 files in \d.*", last)
    assert rest == ""
    assert screen.cursor
    if columns == 100:
        pace = r"[\d,.]+ per second, [\d.]+ s left, [\d.]+ s so far"
        assert re.search(rf"━.* embed: 3 of 8 files, {pace}", output)
    else:
        assert "embed: 3 of 8 files" in output


def test_a_run_that_is_killed_leaves_the_cursor():
    status, _, output = run(80, fourth="os.kill(os.getpid(), signal.SIGKILL)")
    assert status == -signal.SIGKILL
    screen = Screen(80, output)
    assert "of 8 files" in screen.lines[-1]
    assert screen.cursor


@pytest.mark.parametrize("columns", [0, 80])
def test_a_stage_that_fails_leaves_no_bar_and_did_not_end(columns):
    status, _, output = run(columns, last="raise SystemExit(3)")
    assert status == 3
    assert "embed: 8 files in" not in output
    if columns:
        lines = Screen(columns, output).lines
        assert [line for line in lines if line] == wrapped(SHOWN, columns)


@pytest.mark.parametrize(("columns", "term"), [(0, "xterm"), (80, "dumb")])
def test_elsewhere_there_are_plain_lines(columns, term):
    status, result, output = run(columns, TERM=term)
    assert (status, result) == (0, "a result\n")
    said, *lines, last = output.splitlines()
    assert said == SHOWN
    assert len(lines) >= 4
    assert lines[0].startswith("embed: 1 of 8 files, 0.")
    for line in lines:
        assert re.fullmatch(
            r"embed: \d of 8 files(, [\d,.]+ per second, [\d.]+ s left)?, [\d.]+ s so far", line
        )
    assert last.startswith("embed: 8 files in ")


def test_what_is_quiet_says_nothing(capfd):
    progress = Progress(quiet=True)
    with progress.stage("embed", "files", 1, lambda: 1):
        progress.say("a line")
    assert capfd.readouterr() == ("", "")


def test_the_rate_counts_from_the_first_sign_of_life():
    pace = _Pace("files", 1000, 200, began=0.0)
    assert pace.words(200, 30.0) == "200 of 1,000 files, 30 s so far"
    assert pace.words(300, 40.0) == "300 of 1,000 files, 40 s so far"
    assert pace.words(400, 50.0) == (
        "400 of 1,000 files, 10.0 per second, 1 min 0 s left, 50 s so far"
    )
    assert pace.words(1000, 110.0) == "1,000 of 1,000 files, 10.0 per second, 1 min 50 s so far"
