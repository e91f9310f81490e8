"""What a run over very many images is predicted to take on many workers."""

from __future__ import annotations

import json

import pytest

from lookalike.ivf.planner import plan
from lookalike.ivf.predicting import Prediction, Rates, predict
from lookalike.pipelines.cli import main
from lookalike.scaling import EMBED_S, Scale, scale
from lookalike.sources.units import MOST_UNITS, unit_rows_for

RATES = Rates(
    products=1e11,
    prepare_s=1e-6,
    encode_s=2e-5,
    codebooks_s=30.0,
    bytes_s=1e9,
    memory_bytes=16 << 30,
)


def predicted(rows: int, dim: int = 512, **options: object) -> tuple[Scale, Prediction]:
    spec = plan(rows, dim, "cosine", {"memory": 1 << 50, **options})
    prediction = predict(rows, spec, RATES)
    return scale(rows, spec, prediction, workers=500, cores=4), prediction


@pytest.mark.parametrize("rows", [1, 1000, 10**6, 10**8, 10**9, 10**10])
def test_sums_and_shares(rows: int) -> None:
    found, prediction = predicted(rows)
    stages = {stage.name: stage for stage in found.stages}
    assert list(stages) == ["list", "reconcile", "embed", "train", "encode", "group", "certify"]
    assert found.seconds == sum(stage.seconds for stage in found.stages)
    for stage in found.stages:
        assert stage.tasks >= 1
        assert stage.core_s / 500 <= stage.seconds + 1e-9 <= stage.core_s + 1e-6
    assert stages["embed"].core_s == pytest.approx(rows * EMBED_S)
    assert stages["embed"].requests >= rows
    assert stages["train"].tasks == 1
    assert stages["train"].core_s == pytest.approx(4 * prediction.train_s)
    assert found.bytes["embeddings"] == prediction.embeddings_bytes
    assert found.worker_bytes >= prediction.training_bytes
    assert json.loads(json.dumps(found.to_json()))["requests"] == found.requests


def test_units_are_larger_where_there_are_very_many() -> None:
    assert unit_rows_for(10**6) == 1024
    for rows in (10**8, 10**9, 10**10):
        units = -(-rows // unit_rows_for(rows))
        assert MOST_UNITS * 0.9 < units <= MOST_UNITS


def test_the_launching_process_holds_files_not_images() -> None:
    few, many = predicted(10**8)[0], predicted(10**10)[0]
    assert many.launcher_bytes < 2 * few.launcher_bytes < 512 << 20


def test_limits_name_what_breaks_and_the_remedy() -> None:
    assert predicted(10**6)[0].limits == ()
    words = "\n".join(predicted(10**10)[0].limits)
    for part in ("training holds", "index.nlist", "a searching process holds", "embed takes"):
        assert part in words


def test_plan_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--rows", "1e7", "--dim", "64", "--workers", "20"]) == 0
    said = capsys.readouterr().out
    assert "vectors    10,000,000 of 64 dimensions" in said
    assert "workers    20 of one core; 8.8 ms to embed an image, of the default's features" in said
    assert "core-hours" in said
    assert "limits     nothing comes near a limit" in said
    assert main(["plan", "--rows", "1e7", "--dim", "64", "--workers", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scale"]["workers"] == 20
    assert [stage["name"] for stage in found["scale"]["stages"]][2] == "embed"
    assert main(["plan", "--rows", "100", "--dim", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scale"] is None


@pytest.mark.parametrize("rows", ["1.5", "many", "1e-3"])
def test_numbers_that_are_none(rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--rows", rows, "--dim", "64"]) == 2
    said = capsys.readouterr().err
    assert f"--rows: needs a whole number, as 1000000 or 1e6, got '{rows}'" in said
