"""`make bench-serve`: the server asked by several clients, beside the library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.processes import WayError
from benchmarks.serve import main, numbers, together
from tests.serving import serving
from tests.vector_stores import clustered, make_store


def test_library_and_server_are_asked_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "store", clustered(400, 16))
    output = tmp_path / "serve.json"
    asked = ["--store", str(tmp_path / "store"), "--clients", "5", "--requests", "42"]
    assert main([*asked, "--rounds", "2", "--pause", "0.01", "--json", str(output)]) == 0
    found = json.loads(output.read_text())
    assert (found["rows"], found["dim"], found["served"]) == (400, 16, 2 * 2 * 42)
    assert set(found["states"]) == {"library", "waiting", "pausing"}
    for one in found["states"].values():
        assert 0 < one["p50"] <= one["p99"]
        assert one["per_second"] > 0
    out = capsys.readouterr().out
    assert "5 clients that never pause" in out
    assert "none failed" in out


def test_a_request_that_fails_ends_it(tmp_path: Path) -> None:
    make_store(tmp_path, clustered(50, 8))
    with serving(tmp_path) as served, pytest.raises(WayError, match="404 not found"):
        together(served.port, [1 << 40], 3, 0.0)


def test_numbers_of_requests() -> None:
    found = numbers([0.001] * 99 + [0.101], 0.5)
    assert found == pytest.approx({"p50": 1, "p99": 2, "per_second": 200})
