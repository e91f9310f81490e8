"""What is wrong with an engine is said in one line, before anything is done."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lookalike.errors import RequestError
from lookalike.pipelines import engine, preflight
from lookalike.pipelines.cli import main
from lookalike.pipelines.engines import ENGINES, all_options, beam_options
from lookalike.pipelines.runner import RunnerSpec
from lookalike.sight import look, shown

FLINK = {
    "execution_mode_for_batch": "BATCH",
    "environment_type": "EXTERNAL",
    "environment_config": "localhost:50000",
}
CLOUD = {"project": "p", "region": "r", "temp_location": "gs://b/t"}


def options(name: str, workers: int = 0, *arguments: str, **given: Any) -> dict[str, str]:
    flags = beam_options(name, workers, given, arguments)
    assert flags[0] == f"--runner={ENGINES[name].runner}"
    return dict(flag[2:].split("=", 1) for flag in flags[1:])


# --- what Beam is told --------------------------------------------------------------------------


def test_traps_are_answered_unless_the_user_answers_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_PRISM", __file__)
    usual = {"job_server_timeout": "604800", "prism_log_kind": "text"}
    assert options("prism") == {**usual, "prism_location": __file__}
    own = {"job_server_timeout": "9", "prism_location": "/p"}
    assert options("prism", **own) == {**usual, **own}
    monkeypatch.setenv("LOOKALIKE_PRISM", "/nowhere")
    assert options("prism") == usual  # Beam looks for one
    for master in ("h:1", "localhost:8081", "http://[::1]:8081"):
        assert options("flink", flink_master=master) == {"flink_master": master, **FLINK}
    assert (
        options("flink", 0, "--execution_mode_for_batch=PIPELINED")["execution_mode_for_batch"]
        == "PIPELINED"
    )
    own = options("flink", environment_type="DOCKER")
    assert own["environment_type"] == "DOCKER"
    assert "environment_config" not in own
    assert "environment_type" not in options("flink", flink_master="[local]")
    assert "environment_type" not in options("spark", spark_master_url="local[4]")
    assert options("spark", spark_rest_url="h:1")["environment_type"] == "EXTERNAL"
    assert options("dataflow", **CLOUD)["number_of_worker_harness_threads"] == "1"


@pytest.mark.parametrize(
    ("name", "option", "number"),
    [
        ("dask", "dask_npartitions", 24),
        ("flink", "parallelism", 6),
        ("dataflow", "max_num_workers", 6),
    ],
)
def test_workers_are_asked_for_as_each_engine_takes_them(
    name: str, option: str, number: int
) -> None:
    assert options(name, 6)[option] == str(number)
    assert option not in options(name)
    assert options(name, 6, **{option: 3})[option] == "3"


def test_partitions_of_dask_may_be_counted_otherwise() -> None:
    assert options("dask", 6, dask_partition_size=5) == {"dask_partition_size": "5"}


def test_the_command_line_counts() -> None:
    told = all_options({"a": 1, "b": 2}, ["--a=3", "--c", "4", "--d", "--e"])
    assert told == {"a": "3", "b": 2, "c": "4", "d": "", "e": ""}


def test_the_help_names_all_engines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in ENGINES)


# --- what is missing ----------------------------------------------------------------------------


@pytest.fixture
def refused(
    pictures: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """What a run with a runner says; nothing is left of it."""
    folder, config, store = pictures(2), tmp_path / "config.yaml", tmp_path / "store"

    def run(runner: str) -> str:
        config.write_text(f"runner: {runner}\n")
        asked = ["--config", str(config), "--images", str(folder), "--store", str(store)]
        assert main(["index", *asked]) == 2
        assert not store.exists()
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        return said

    return run


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        ("{name: flink}", "runner flink: needs flink_master or job_endpoint, under runner in the"),
        ("{name: spark}", "runner spark: needs spark_master_url or spark_rest_url or job_endpoint"),
        ("{name: flonk}", "runner.name: needs one of direct, prism, dask, flink, spark, dataflow"),
    ],
)
def test_what_an_engine_needs_is_said(
    runner: str, message: str, refused: Callable[[str], str]
) -> None:
    assert message in refused(runner)


@pytest.mark.parametrize(("name", "extra"), [("dask", "dask"), ("dataflow", "gcp")])
def test_what_is_not_installed_is_said(
    name: str, extra: str, refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, ENGINES[name].module, None)
    said = refused(f"{{name: {name}}}")
    assert f"runner {name}: not installed here" in said
    assert f"pip install 'lookalike[{extra}]'" in said


@pytest.mark.parametrize(
    ("name", "option", "scheme"),
    [
        ("flink", "flink_master", ""),
        ("flink", "flink_master", "http://"),
        ("flink", "job_endpoint", ""),
        ("spark", "spark_master_url", "spark://"),
        ("prism", "job_endpoint", ""),
    ],
)
def test_who_does_not_answer_is_named(
    name: str, option: str, scheme: str, refused: Callable[[str], str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        address = f"{scheme}127.0.0.1:{closed.getsockname()[1]}"
        said = refused(f'{{name: {name}, {option}: "{address}"}}')
    assert f"runner {name}: nobody answers at {option} {address}: Connection refused" in said


def test_java_is_needed_only_where_beam_starts_a_job_server(
    refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = refused('{name: flink, flink_master: "[local]"}')
    assert "runner flink: Beam's job server needs Java, and there is no java here" in said
    uber = {"flink_master": "[auto]", "flink_submit_uber_jar": True}
    assert preflight.ready(RunnerSpec("flink", 3, uber)).workers == 3


def test_no_folder_of_this_machine_serves_dataflow(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^/pics/a.png: a folder of this machine, .*gs://"):
        preflight.check_folders(RunnerSpec("dataflow"), [], [("/pics/a.png", 3)])


def test_the_direct_runner_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run", None)
    here = RunnerSpec(workers=2)
    assert preflight.ready(here) is here
    preflight.check_folders(here, [], [("/nowhere", 1)])


# --- what a worker sees -------------------------------------------------------------------------


def test_a_worker_that_sees_all_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"123")
    there, new = tmp_path / "there", tmp_path / "a" / "b"
    there.mkdir()
    with shown([str(there), str(new)], [(str(tmp_path / "file"), 3)]) as sight:
        look(sight)
        assert len(list(there.iterdir())) == 2
    assert not list(there.iterdir())
    assert not new.parent.exists()


def test_a_worker_says_what_it_does_not_see(tmp_path: Path) -> None:
    where = rf"a worker on {socket.gethostname()} \(user {os.getuid()}\) cannot use it"
    (tmp_path / "file").write_bytes(b"123")
    with (
        shown([], [(str(tmp_path / "file"), 4)]) as sight,
        pytest.raises(RequestError, match=rf"/file: {where}: another file .*; mount it"),
    ):
        look(sight)
    with shown([str(tmp_path)], []) as sight:
        note = next(tmp_path.glob(".seen-*"))
        note.write_text("another machine's")
        with pytest.raises(RequestError, match=rf"^{tmp_path}: {where}: another folder than"):
            look(sight)
        note.rename(tmp_path / "moved")
        with pytest.raises(RequestError, match=rf"^{tmp_path}: {where}: No such file.*s3://"):
            look(sight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "moved"]
