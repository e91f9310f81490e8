"""One `lookalike` logger, in workers too; the command shows it from a level on."""

from __future__ import annotations

import io
import logging
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.outcomes import RejectedNames
from lookalike.pipelines import logs
from lookalike.pipelines.cli import main
from lookalike.pipelines.progress import Progress
from lookalike.transforms.logs import LoggedFn, unit_of

LOG = logging.getLogger("lookalike.tests")


@pytest.mark.slow
def test_a_run_names_rejected_files(
    pictures: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, config = pictures(6), tmp_path / "config.yaml"
    for number in range(4):
        (folder / f"bad{number}.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture %d" % number)
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )
    top = logging.getLogger("lookalike")
    before = (top.level, top.propagate, [*top.handlers])
    command = ["index", "--config", str(config), "--images", str(folder)]
    assert main([*command, "--store", str(tmp_path / "quiet")]) == 0
    assert " WARNING " not in capsys.readouterr().err
    command += ["--log-level", "warning"]
    assert main([*command, "--store", str(tmp_path / "store")]) == 0
    assert (top.level, top.propagate, [*top.handlers]) == before
    said = capsys.readouterr().err
    [warned] = [line for line in said.splitlines() if " WARNING " in line]
    assert " lookalike.unit_embedding: embed: unit 0: 4 of 10 rejected: 4 truncated: " in warned
    assert warned.endswith(", …")
    assert [warned.count(f"bad{number}.jpg") for number in range(4)] == [1, 1, 1, 0]
    assert " INFO " not in said


@pytest.mark.slow
def test_workers_log_from_the_level_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)
    vectors[3] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8)
    uris = [f"/{number}" for number in range(len(vectors))]
    pq.write_table(pa.table({"uri": uris, "embedding": column}), tmp_path / "v.parquet")
    (tmp_path / "config.yaml").write_text("runner: {workers: 2}\n")
    command = ["index", "--config", str(tmp_path / "config.yaml"), "--log-level", "info"]
    source, store = str(tmp_path / "v.parquet"), str(tmp_path / "store")
    assert main([*command, "--embeddings", source, "--store", store]) == 0
    said = capsys.readouterr().err
    [process] = re.findall(
        r" INFO lookalike\.ingest_work: ingest: unit 0, attempt \S+:(\d+)/1: [\d.]+ s, "
        r"39 embedded, 1 rejected\n",
        said,
    )
    assert process != str(os.getpid())
    assert " WARNING lookalike.vector_units: ingest: unit 0: 1 of 40 rejected: 1 " in said
    stages = re.findall(r" INFO lookalike\.pipelines\.progress: (\w+): [\d.]+ s\n", said)
    assert {"scan", "ingest", "settle", "encode", "certify"} <= set(stages)


def test_a_library_says_nothing_by_itself() -> None:
    code = (
        "import logging, lookalike\n"
        "logging.getLogger('lookalike.store').error('a')\n"
        "print(logging.getLogger().handlers, logging.getLogger('lookalike').handlers)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("[] [<NullHandler (NOTSET)>]\n", "")


def test_a_line_waits_for_nobody_and_breaks_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """While a stage shows how far it is, lines go where it does."""
    shown = io.StringIO()
    with logs.shown("info"):
        with Progress(shown).stage("embed", "files", 2, lambda: 0):
            LOG.info("during \x1b[2J")
            LOG.debug("nothing")
        LOG.warning("after")
    LOG.error("too late for the command")
    during, stage = shown.getvalue().splitlines()
    assert during.endswith(" INFO lookalike.tests: during \\u001b[2J")
    assert stage.startswith("embed: 2 files")
    [after] = capsys.readouterr().err.splitlines()
    assert after.endswith(" WARNING lookalike.tests: after")


def test_the_level_travels_with_what_is_sent() -> None:
    top = logging.getLogger("lookalike")
    before = top.level
    try:
        top.setLevel(logging.INFO)
        sent = pickle.dumps(LoggedFn())
        top.setLevel(logging.NOTSET)
        unset = pickle.dumps(LoggedFn())
        pickle.loads(sent)
        assert top.level == logging.INFO
        pickle.loads(unset)  # of a program that chose none
        assert top.level == logging.INFO
    finally:
        top.setLevel(before)


def test_a_unit_that_failed_is_told_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lookalike")
    error = OSError("no room\nat all")
    with pytest.raises(OSError, match="no room"), unit_of(LOG, "embed", 7):
        raise error
    [record] = caplog.records
    assert record.levelno == logging.INFO  # the engine tells the error, once
    assert re.fullmatch(
        r"embed: unit 7, attempt \S+:\d+/\d+: failed after [\d.]+ s: OSError: no room at all",
        record.getMessage(),
    )


def test_rejects_are_one_line_however_many(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "lookalike")
    names = RejectedNames()
    names.log(LOG, "embed", 3, 5)
    names.add([("crashed", "/z"), *(("truncated", f"/{number}") for number in range(1000))])
    names.log(LOG, "embed", 3, 1200)
    assert [record.getMessage() for record in caplog.records] == [
        "embed: unit 3: 1001 of 1200 rejected: 1 crashed: /z; 1,000 truncated: /0, /1, /2, …"
    ]
