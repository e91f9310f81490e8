"""What the benchmark of near-copies counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.duplicates import EDITS, clusters, judged, main
from tests.test_verified_copies import textured


def test_recall_and_precision_are_counted_by_edit() -> None:
    rows = [
        {"uri": f"/x/{name}.jpg", "copy_of": of and f"/x/{of}.jpg"}
        for name, of in [
            ("0000.original", None),
            ("0000.crop", "0000.original"),
            ("0001.crop", "0000.original"),
            ("0001.original", None),
            ("0001.flip", "0001.original"),
            ("other", None),
            ("another", "0001.original"),
        ]
    ]
    found = judged(clusters(rows), 2)
    assert found["crop"] == (0.5, 1 / 4)  # of pairs 0 0, 0 1, 1 0, 1 0
    assert found["flip"] == (0.5, 1.0)
    assert found["half"] == (0.0, 1.0)
    assert set(found) == set(EDITS)


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(2):
        textured(number, (320, 240)).save(tmp_path / "pictures" / f"{number}.jpg", quality=95)
    config, out = tmp_path / "config.yaml", tmp_path / "out.json"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )
    given = [
        "--images",
        str(tmp_path / "pictures"),
        "--config",
        str(config),
        "--thresholds",
        "0.5",
        "--json",
        str(out),
    ]
    assert main(given) == 0
    told = capsys.readouterr()
    said = iter(told.err.splitlines())  # a table of each way, as soon as there is one
    rows = [next(said) for line in said if line.startswith("way ")]
    assert [line.split() for line in told.out.splitlines()[-2:]] == [row.split() for row in rows]
    plain, verified = json.loads(out.read_text())
    assert plain["edits"]["half"][0] == 1
    for edit in EDITS:
        recall, precision = verified["edits"][edit]
        assert recall == 1
        assert precision == 1
