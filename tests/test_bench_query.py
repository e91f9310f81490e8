from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.processes import worker_threads
from benchmarks.query import busy, main, middle, summary
from benchmarks.query_store import queries
from tests.vector_stores import clustered, make_store


def test_both_environments_are_asked_alone_and_beside_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "store", clustered(400, 16))
    output = tmp_path / "query.json"
    arguments = ["--store", str(tmp_path / "store"), "--queries", "20", "--rounds", "1"]
    assert main([*arguments, "--busy", "1", "--json", str(output)]) == 0
    found = json.loads(output.read_text())
    assert (found["rows"], found["dim"], found["busy"]) == (400, 16, 1)
    for state in ("alone", "beside"):
        one = found["states"][state]
        assert one["ratio"] == pytest.approx(
            one["settings"]["unset"]["p50"] / one["settings"]["1"]["p50"]
        )
        for ms in one["settings"].values():
            assert 0 < ms["p50"] <= ms["p90"]
            assert ms["own_ms"] > 0
    assert capsys.readouterr().out.count("p50, unset to 1") == 2


def test_a_store_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_queries_are_near_stored_rows_of_every_file(tmp_path: Path) -> None:
    _, vectors, _ = make_store(tmp_path, clustered(90, 16), files=3)
    found = queries(tmp_path, 90)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = found / np.linalg.norm(found, axis=1, keepdims=True) @ unit.T
    assert sorted(cosines.argmax(axis=1).tolist()) == list(range(90))
    assert queries(tmp_path, 200).shape == (200, 16)


def test_the_middle_of_rounds_is_that_of_each_number() -> None:
    first = {"seconds": [0.001, 0.003], "own": 0.004, "others": 0.0}
    second = {"seconds": [0.002], "own": 0.002, "others": 0.003}
    one = summary([first, second])
    assert one == pytest.approx({"p50": 2, "p90": 2.8, "own_ms": 2, "others_ms": 1})
    rounds = [{"p50": 1, "p90": 9}, {"p50": 2, "p90": 7}, {"p50": 3, "p90": 8}]
    assert middle(rounds) == {"p50": 2, "p90": 8}


def test_busy_processes_end_with_the_block_and_with_their_parent() -> None:
    def children() -> set[str]:
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True
        )
        return set(listed.stdout.split())

    before = len(children())  # ps itself, and what other tests have left running
    with busy(2):
        assert len(children()) >= before + 2
    assert len(children()) <= before
    code = "import os\nfrom benchmarks.query import busy\nwith busy(1):\n os._exit(0)"
    # Whoever holds the pipe is the busy process: it must end by itself, or this would wait.
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=60)


def test_thread_counts_of_workers_do_not_stay_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with worker_threads(3):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENBLAS_NUM_THREADS"] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ
