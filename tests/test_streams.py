"""Standard streams that are closed, end early, or are full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Prints on both, opens a file between, tells on it what happened, and ends as commands do.
_SCRIPT = """
import os, sys
from contextlib import suppress
from lookalike.pipelines import streams
streams.hold()
with open(sys.argv[1], "w") as told:
    for number in range(4):
        print("out", "x" * 10_000)
        print("err", file=sys.stderr)
        sys.stdout.flush()
        with suppress(OSError):
            os.write(2, b"native\\n")
    told.write(f"{told.fileno() > 2} {streams.reader_gone()}")
os._exit(streams.settle(int(sys.argv[2])))
"""


def shell(tmp_path, line, status=0):
    """Run the script with redirections in bash; its exit status, what it told, and its stdout."""
    told = tmp_path / "told"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SCRIPT": _SCRIPT}
    command = f'run() {{ "{sys.executable}" -c "$SCRIPT" {told} {status}; }}; {line}'
    found = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    assert "Traceback" not in found.stderr
    assert "Exception ignored" not in found.stderr
    return found.returncode, told.read_text(), found


@pytest.mark.parametrize(
    "line",
    [
        "run >&-",
        "run 2>&-",
        "run >&- 2>&-",
        "run <&-",
        "run <&- >&- 2>&-",
        "run 1</dev/null",
        "run 2>/dev/full",
        "run 2>/dev/full >&-",
        "run | head -c 3 >/dev/null; exit ${PIPESTATUS[0]}",
        "run | true; exit ${PIPESTATUS[0]}",
        "run 2>&1 | true; exit ${PIPESTATUS[0]}",
        "run 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}",
    ],
)
@pytest.mark.parametrize("status", [0, 3])
def test_the_status_is_that_of_what_was_done(tmp_path, line, status):
    ended, told, _ = shell(tmp_path, line, status)
    assert ended == status
    assert told.split()[0] == "True"  # no file took the place of a stream


def test_output_that_is_read_is_all_there(tmp_path):
    ended, told, found = shell(tmp_path, "run")
    assert (ended, told) == (0, "True False")
    assert found.stdout == ("out " + "x" * 10_000 + "\n") * 4
    assert found.stderr == "err\nnative\n" * 4


def test_a_reader_that_went_away_is_known(tmp_path):
    _, told, _ = shell(tmp_path, "(run; echo $? >&2) | true")
    assert told == "True True"


def test_an_output_that_is_lost_for_want_of_room_is_no_success(tmp_path):
    line = f'"{sys.executable}" -m lookalike.pipelines.cli --help >/dev/full'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr == "lookalike: the output cannot be written: No space left on device\n"


def test_a_run_publishes_with_all_streams_closed_and_leaves_no_temporary_file(pictures, tmp_path):
    folder, place = pictures(3), tmp_path / "place"
    place.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(place)}
    line = (
        f'"{sys.executable}" -m lookalike.pipelines.cli index --images {folder}'
        f" --store {tmp_path}/s --json <&- >&- 2>&-"
    )
    assert subprocess.run(["bash", "-c", line], env=environment).returncode == 0
    assert (tmp_path / "s" / "CURRENT").read_text()
    assert list(place.iterdir()) == []
    line = f'"{sys.executable}" -m lookalike.pipelines.cli query'
    line += f" --store {tmp_path}/s --images {folder} --json"
    line += " | head -1; exit ${PIPESTATUS[0]}"
    found = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stdout.count("\n")) == (0, 1)
    assert "Traceback" not in found.stderr
    assert list(place.iterdir()) == []
