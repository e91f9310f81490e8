"""Exit statuses: what passes by waiting, and what ends the same way every time."""

from __future__ import annotations

import errno
import json
from concurrent.futures.process import BrokenProcessPool

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from lookalike.errors import NotPublishedError, RequestError, StoreWriteError
from lookalike.pipelines.cli import main
from lookalike.pipelines.ending import AGAIN, FAULT, NOT_PUBLISHED, WRONG_REQUEST, status_of
from lookalike.pipelines.engine import run
from lookalike.pipelines.runner import EngineError, RunnerSpec, WorkerDiedError
from lookalike.store.locks import StoreBusyError
from lookalike.store.objects import ObjectStoreError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("x"), WRONG_REQUEST),
        (NotPublishedError("x"), NOT_PUBLISHED),
        (OSError(errno.ENOSPC, "No space left on device"), AGAIN),
        (StoreWriteError("x"), AGAIN),
        (ObjectStoreError("x"), AGAIN),
        (StoreBusyError("x"), AGAIN),
        (ConnectionResetError(), AGAIN),
        (TimeoutError(), AGAIN),
        (MemoryError(), AGAIN),
        (np._core._exceptions._ArrayMemoryError((9,), np.dtype("f4")), AGAIN),
        (pa.ArrowMemoryError("x"), AGAIN),
        (EOFError(), AGAIN),
        (BrokenProcessPool("x"), AGAIN),
        (KeyboardInterrupt(), AGAIN),
        (RuntimeError("can't start new thread"), AGAIN),
        (RuntimeError("std::bad_alloc"), AGAIN),
        (RuntimeError("could not open /x for reading: No such file or directory"), AGAIN),
        (WorkerDiedError("a worker process was killed by signal 9"), AGAIN),
        (EngineError("the flink runner ended in state FAILED"), AGAIN),
        (EngineError("no room", "lookalike.errors.StoreWriteError"), AGAIN),
        (EngineError("x", "OSError"), AGAIN),
        (EngineError("x", "somewhere.UnknownError"), AGAIN),
        (EngineError("Too many bins", "ValueError"), FAULT),
        (EngineError("vector 3 is zero", "lookalike.errors.RequestError"), FAULT),
        (EngineError("x", "pyarrow.lib.ArrowInvalid"), FAULT),
        (EngineError("Error: 'd == 3' failed", "RuntimeError"), FAULT),
        (ValueError("Too many bins"), FAULT),
        (KeyError("x"), FAULT),
        (ZeroDivisionError(), FAULT),
        (AssertionError(), FAULT),
        (RecursionError(), FAULT),
        (np.linalg.LinAlgError("Eigenvalues did not converge"), FAULT),
        (pa.ArrowInvalid("x"), FAULT),
        (RuntimeError("the ledger has 3 rows, 4 were counted; nothing was published"), FAULT),
    ],
    ids=repr,
)
def test_statuses(error, status):
    assert status_of(error) == status


def _fail(number):
    if number == 1:
        raise ValueError("Too many bins: 30")
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(("number", "status"), [(1, FAULT), (2, AGAIN)])
def test_what_a_worker_ended_with_is_known(number, status):
    def build(pipeline):
        _ = pipeline | beam.Create([number]) | beam.Map(_fail)

    with pytest.raises(EngineError, match=r"Too many bins: 30|Input/output error") as caught:
        run(build, RunnerSpec(workers=1))
    assert caught.value.kind == ("ValueError" if number == 1 else "OSError")
    assert status_of(caught.value) == status


def _import_what_is_not_there(number):
    raise ModuleNotFoundError("No module named 'lookalike'")


def test_workers_without_the_code_are_told_of():
    def build(pipeline):
        _ = pipeline | beam.Create([1]) | beam.Map(_import_what_is_not_there)

    with pytest.raises(EngineError, match=r"^the workers cannot import lookalike: ") as caught:
        run(build, RunnerSpec(workers=1))
    assert status_of(caught.value) == FAULT


def test_a_store_whose_manifest_makes_no_sense_is_not_tried_again(tmp_path, capsys):
    """A fault that nobody foresaw, through the command: which status, and what is said."""
    folder = tmp_path / "snapshots/one"
    folder.mkdir(parents=True)
    (tmp_path / "CURRENT").write_text("one\n")
    manifest = {"format": "lookalike-snapshot", "version": 1, "name": "one", "files": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    status = main(["status", "--store", str(tmp_path)])
    said = capsys.readouterr().err
    assert status in (WRONG_REQUEST, FAULT)
    assert said.count("\n") == 1
    assert status == WRONG_REQUEST or "trying again ends the same way" in said


def test_metrics_that_cannot_be_written_change_no_status(tmp_path, capsys):
    """A place that is none is told before the run; one that is lost meanwhile, at its end."""
    arguments = ["index", "--images", str(tmp_path), "--store", str(tmp_path / "s"), "--metrics"]
    assert main([*arguments, str(tmp_path / "none/l.prom")]) == WRONG_REQUEST
    assert "--metrics" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path)]) == WRONG_REQUEST
    assert "is a folder; name a file in it" in capsys.readouterr().err
    long = str(tmp_path / ("x" * 255))  # its temporary name would be too long
    assert main([*arguments, long]) == WRONG_REQUEST  # that of the run
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "--metrics" in said[0]
    assert "not written: " in said[0]
    assert "the store lies inside the source" in said[1]
