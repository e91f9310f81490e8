"""The examples for schedulers and engines: run where they can be, else held against what they must
be."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions

from lookalike.pipelines import flags
from lookalike.pipelines.config import load_config
from lookalike.pipelines.engines import beam_options
from tests.documented import ROOT

EXAMPLES = ROOT / "examples"
SCRIPT = EXAMPLES / "cron" / "nightly.sh"
# Stands for `lookalike`: notes how it was called, ends as told by the file `ends`, line by line.
COMMAND = """#!/bin/sh
cd {folder}
echo "$@" >>calls
echo "line of run $(grep -c ^index calls)"
[ "$1" = gc ] && exit {gc}
status=$(head -n 1 ends); sed -i 1d ends
exit "$status"
"""


def nightly(tmp_path, ends, gc=0, **settings):
    """Exit status, what cron would mail, the calls, the log."""
    (tmp_path / "ends").write_text("".join(f"{status}\n" for status in ends))
    command = tmp_path / "command"
    command.write_text(COMMAND.format(folder=shlex.quote(str(tmp_path)), gc=gc))
    command.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "STORE": f"{tmp_path}/a store",
        "LOOKALIKE": str(command),
        "LOG": f"{tmp_path}/log",
        "PAUSE": "0",
        **settings,
    }
    ended = subprocess.run(
        [SCRIPT, "--images", "two words", "--config", "c"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == ""
    calls = (tmp_path / "calls").read_text().splitlines()
    return ended.returncode, ended.stdout, calls, (tmp_path / "log").read_text()


def test_a_good_night_says_nothing_and_sweeps(tmp_path):
    status, mail, calls, log = nightly(tmp_path, [0], METRICS="/m/a b.prom")
    store = f"--store {tmp_path}/a store"
    assert (status, mail) == (0, "")
    assert calls == [
        f"index --images two words --config c {store} --metrics /m/a b.prom",
        f"gc {store} --keep-last 3 --keep-days 14",
    ]
    assert "line of run 1" in log


@pytest.mark.parametrize(
    ("ends", "status", "runs"),
    [
        ([1, 0], 0, 2),
        ([1, 1, 1, 0], 1, 3),
        ([2], 2, 1),
        ([3], 3, 1),
        ([1, 3], 3, 2),
        ([4], 4, 1),
        ([137], 137, 1),
    ],
)
def test_only_status_1_is_tried_again(tmp_path, ends, status, runs):
    ended, mail, calls, _ = nightly(tmp_path, ends)
    assert ended == status
    assert sum(call.startswith("index") for call in calls) == runs
    assert any(call.startswith("gc") for call in calls) == (status == 0)
    if status:
        assert mail.startswith(f"lookalike index: exit status {status} after {runs} of 3 tries")
        assert f"line of run {runs}" in mail
        assert f"line of run {runs - 1}" not in mail  # of the last run alone
    else:
        assert mail == ""


def test_a_sweep_that_fails_is_told_though_the_night_was_good(tmp_path):
    status, mail, _, _ = nightly(tmp_path, [0], gc=1)
    assert status == 0
    assert mail.startswith("lookalike gc: exit status 1")


def test_a_store_must_be_named(tmp_path):
    ended = subprocess.run(
        [SCRIPT], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert ended.returncode != 0
    assert "name the store" in ended.stderr


def parsed(arguments):
    return flags.make_parser().parse_args(arguments)


def test_the_crontab_has_one_line_that_the_command_takes():
    lines = [line for line in (EXAMPLES / "cron" / "crontab").read_text().splitlines() if line]
    settings = dict(line.split("=", 1) for line in lines if "=" in line and line[0].isupper())
    assert settings["METRICS"].endswith(".prom")
    (job,) = [line for line in lines if line[0] in "0123456789*"]
    assert "%" not in job  # which cron takes for the end of a line
    fields = job.split(maxsplit=5)
    for field, most in zip(fields[:5], (59, 23, 31, 12, 7), strict=True):
        assert field == "*" or int(field) <= most
    script, *arguments = shlex.split(fields[5])
    assert Path(script).name == SCRIPT.name
    more = ["--store", settings["STORE"], "--metrics", settings["METRICS"]]
    given = parsed(["index", *arguments, *more])
    assert given.metrics == settings["METRICS"]
    kept = parsed(["gc", "--store", "s", "--keep-last", "3", "--keep-days", "14"])
    assert (kept.keep_last, kept.keep_days) == (3, 14)


def test_the_dag_calls_what_there_is():
    source = (EXAMPLES / "airflow" / "lookalike_nightly.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    compile(tree, "dag", "exec")
    imported = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    values = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    store = ast.literal_eval(values["STORE"])
    command = ast.unparse(values["INDEX"]).replace("STORE", repr(store))
    name, *arguments = ast.literal_eval(command)
    assert name == "lookalike"
    assert parsed(arguments).store == store
    assert set(ast.literal_eval(values["MEANINGS"])) == {2, 3, 4}
    assert imported["PythonOperator"] == "airflow.providers.standard.operators.python"
    assert imported["DAG"] == "airflow.sdk"


def test_the_dag_is_one_where_airflow_is_installed():
    pytest.importorskip("airflow.sdk")
    script = "import lookalike_nightly as made; print(*made.dag.task_ids)"
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES / "airflow")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split()[-2:] == ["index", "gc"]


# --- engines ------------------------------------------------------------------------------------


def commands_in(path):
    """Arguments of every `lookalike` in the comments of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        line.split("lookalike index ", 1)[1]
        for line in lines
        if "# " in line and "lookalike index " in line
    ]


@pytest.mark.parametrize("name", ["flink", "dataflow", "object-storage"])
def test_a_config_of_an_engine_says_what_beam_knows(name):
    path = ROOT / "configs" / f"{name}.yaml"
    (command,) = commands_in(path)
    given = parsed(["index", *shlex.split(command)])
    assert given.config == f"configs/{name}.yaml"
    runner = load_config(str(path)).runner
    arguments = beam_options(runner.name, runner.workers, runner.options, [])
    unknown = []
    for flag in arguments:
        option = flag[2:].split("=")[0]
        known = PipelineOptions([flag]).get_all_options(drop_default=False)
        unknown += [] if option in known or option == "runner" else [option]
    # the last is the Flink job server's own, which Python passes on
    assert set(unknown) <= {"execution_mode_for_batch"}


def test_every_task_manager_has_a_pool_of_its_own():
    services = yaml.safe_load((EXAMPLES / "flink" / "compose.yaml").read_text())["services"]
    managers = [name for name, one in services.items() if one.get("command") == "taskmanager"]
    pools = [
        one["network_mode"] for one in services.values() if one.get("command") == ["--worker_pool"]
    ]
    assert len(managers) == 2
    assert sorted(pools) == [f"service:{name}" for name in managers]
    (cluster,) = yaml.safe_load_all((EXAMPLES / "flink" / "kubernetes.yaml").read_text())
    task = cluster["spec"]["taskManager"]["podTemplate"]["spec"]["containers"]
    assert [one["name"] for one in task] == ["flink-main-container", "pool"]
    pool = beam_options("flink", 0, {}, [])
    (port,) = task[1]["ports"]
    assert f"--environment_config=localhost:{port['containerPort']}" in pool
    version = load_config(str(ROOT / "configs" / "flink.yaml")).runner.options["flink_version"]
    assert cluster["spec"]["image"] == f"flink:{version}" == services["jobmanager"]["image"]
    assert cluster["spec"]["flinkVersion"] == f"v{version.replace('.', '_')}"
    for name in ("compose", "kubernetes"):
        (command,) = commands_in(EXAMPLES / "flink" / f"{name}.yaml")
        assert parsed(["index", *shlex.split(command)]).config == "configs/flink.yaml"


def test_workers_have_the_beam_that_is_tested_with():
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("apache-beam==")
    )
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    (base,) = [line for line in lines if line.startswith("FROM ")]
    assert base.endswith(f"_sdk:{pinned['apache-beam']}")
    for line in lines:  # what is copied is there
        if line.startswith("COPY "):
            *names, _ = line.split()[1:]
            assert all((ROOT / name).exists() for name in names if not name.endswith("]"))


def test_the_script_for_dataflow_runs_what_there_is(tmp_path):
    script = EXAMPLES / "dataflow" / "run.sh"
    for name, body in (("gcloud", "exit 0"), ("lookalike", 'printf "%s\\n" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PROJECT": "p", "BUCKET": "b"}
    ended = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    arguments = ended.stdout.splitlines()
    given = parsed(arguments[: arguments.index("--")])
    assert (ROOT / given.config).exists()
    beam = [flag.partition("=")[::2] for flag in arguments[arguments.index("--") + 1 :]]
    told = load_config(str(ROOT / given.config)).runner.options
    assert {name.strip("-") for name, _ in beam} <= set(told)
    assert all(value for _, value in beam)
    del environment["BUCKET"]
    assert subprocess.run([script], env=environment, capture_output=True).returncode != 0
