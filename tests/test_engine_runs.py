"""`lookalike index` on Beam's engines, whose workers share nothing with it but an S3 server.

On all of them the same comes out. `make test-engines` runs these tests; those of an engine that is
not installed say so.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from lookalike.pipelines import preflight
from lookalike.pipelines.runner import RunnerSpec
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from tests.clusters import CLUSTERS, Cluster
from tests.exchanged import joined
from tests.other_user import OtherUser, other_user
from tests.remote_bench import Bench, picture_file
from tests.s3_server import KEYS, Faults, faulty_proxy

pytest.importorskip("obstore")
pytestmark = pytest.mark.engines

ENGINES = ("direct", *CLUSTERS)
CUT = {"embed": {"unit_files": 8}}
Outcome = tuple[list[Any], dict[str, Any]]


@pytest.fixture(scope="module")
def bench(s3: int, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("launcher"), s3)


@pytest.fixture(scope="module")
def user() -> Iterator[OtherUser]:
    with other_user() as user:
        yield user


@pytest.fixture(scope="module")
def clusters(user: OtherUser) -> Iterator[dict[str, Cluster | str]]:
    """Those that can be had, and why the others cannot."""
    found: dict[str, Cluster | str] = {"direct": Cluster({"workers": 2}, user, retries=True)}
    with ExitStack() as stack:
        for name, start in CLUSTERS.items():
            try:
                found[name] = stack.enter_context(start(user, KEYS))
            except pytest.skip.Exception as missing:
                found[name] = str(missing)
        yield found


def cluster_of(name: str, clusters: dict[str, Cluster | str]) -> Cluster:
    found = clusters[name]
    if isinstance(found, str):
        pytest.skip(found)
    return found


# --- two nights ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nights(bench: Bench, clusters: dict[str, Cluster | str]) -> dict[str, tuple[Outcome, ...]]:
    """What came of a first night, and of a second one, on the engine that comes next."""
    there = [name for name in ENGINES if isinstance(clusters[name], Cluster)]
    bench.put_pictures("pictures", range(40))
    bench.put("pictures/copy.png", bench.get("pictures/000.png"))
    bench.put("pictures/broken.jpg", b"\xff\xd8\xff\xe0 not much of a picture")
    bench.put("pictures/empty.png", b"")
    bench.put("pictures/notes.json", b"{}")

    def night(engines: list[str]) -> list[Outcome]:
        found = []
        for store, engine in zip(there, engines, strict=True):
            runner = cluster_of(engine, clusters).runner
            bench.run(bench.index(store, bench.uri("pictures"), runner, **CUT))
            found.append(bench.outcome(store))
        return found

    first = night(there)
    bench.delete("pictures/001.png")
    bench.put("pictures/002.png", bench.get("pictures/003.png"))
    bench.put("pictures/renamed.png", bench.get("pictures/004.png"))
    bench.delete("pictures/004.png")
    bench.put_pictures("pictures", range(100, 103))
    second = night([*there[1:], there[0]])
    return dict(zip(there, zip(first, second, strict=True), strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_makes_the_same_store(
    engine: str, clusters: dict[str, Cluster | str], nights: dict[str, tuple[Outcome, ...]]
) -> None:
    cluster_of(engine, clusters)
    first, second = nights[engine]
    assert first == nights["direct"][0]
    statuses = [row[1] for row in first[0]]
    assert {one: statuses.count(one) for one in statuses} == {
        "embedded": 40,
        "duplicate": 1,
        "rejected": 1,
        "ignored": 2,
    }
    assert second == nights["direct"][1]
    assert [row[1] for row in second[0]].count("removed") == 2
    assert len(second[0]) == len(first[0]) + 4


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_made_is_whole_and_answers_on_a_machine_that_never_saw_it(
    engine: str,
    bench: Bench,
    clusters: dict[str, Cluster | str],
    nights: dict[str, tuple[Outcome, ...]],
    tmp_path: Path,
) -> None:
    cluster_of(engine, clusters)
    assert nights[engine]
    store = bench.uri(engine)
    bench.run(bench.command("verify", "--store", store))
    query = bench.uri("pictures/002.png")
    command = bench.command("query", "--store", store, "--images", query, "-k", "3", "--json")
    said = bench.run(command, home=tmp_path)
    best, *_ = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    names = {best["uri"], *best["duplicates"]}
    assert names == {bench.uri("pictures/002.png"), bench.uri("pictures/003.png")}


def test_workers_see_nothing_of_the_launching_user(
    bench: Bench, user: OtherUser, clusters: dict[str, Cluster | str]
) -> None:
    for folder in (bench.home, bench.home.parent):
        looked = user.run(f"import os; os.listdir({str(folder)!r})")
        assert "PermissionError" in looked.stderr
    assert user.run(f"import os; os.listdir({str(user.home)!r})").returncode == 0


@pytest.mark.parametrize("engine", CLUSTERS)
def test_folders_that_workers_do_not_see_are_told_before_anything_is_done(
    engine: str, bench: Bench, clusters: dict[str, Cluster | str]
) -> None:
    runner = cluster_of(engine, clusters).runner
    store, folder = bench.home / "here" / f"store-{engine}", bench.home / "pictures"
    folder.mkdir(exist_ok=True)
    (folder / "0.png").write_bytes(picture_file(0))
    where = rf"a worker on {socket.gethostname()} \(user \d+\) cannot use it: Permission denied"
    said = bench.run(bench.index(str(store), str(folder), runner), status=2)
    assert re.search(rf"{store}: {where}; mount it", said)
    assert not store.parent.exists()
    said = bench.run(bench.index(f"none-{engine}", str(folder), runner), status=2)
    assert re.search(rf"{folder}/0.png: {where}; mount it", said)
    assert len(said.splitlines()) == 1
    assert not list(open_store(bench.uri(f"none-{engine}"), bench.home / "none").entries())


# Beam leaves the pipe open by which Prism speaks to it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("engine", CLUSTERS)
def test_rows_of_many_files_meet(
    engine: str, bench: Bench, clusters: dict[str, Cluster | str]
) -> None:
    runner = dict(cluster_of(engine, clusters).runner)
    spec = preflight.ready(RunnerSpec(runner.pop("name"), options=runner))
    assert spec.workers == (2 if engine == "dask" else 0)  # which say what stages are cut into
    found = joined(open_store(bench.uri(f"met-{engine}"), bench.home / "met"), spec)
    assert {number: record["n"] for number, record in found.items()} == {
        number: list(range(number, 100, 3)) for number in range(3)
    }


# --- what is killed -----------------------------------------------------------------------------

# What a worker is about to write when it is killed: the record of a unit, a part, an index shard.
STAGES = ("embedded", "encoded", "grouped")
SMALL = {"kind": "ivf_pq", "nlist": 4, "code_bytes": 4, "nbits": 4, "shards": 2, "queries": 20}
BIG = {**CUT, "index": SMALL, "publish": {"min_recall": 0}}


@pytest.fixture(scope="module")
def oracle(bench: Bench) -> Outcome:
    """What comes of a run that nobody disturbs."""
    bench.put_pictures("many", range(200, 330))
    bench.put("many/broken.jpg", b"\xff\xd8\xff\xe0 not much of a picture")
    bench.run(bench.index("oracle", bench.uri("many"), {"workers": 2}, **BIG))
    return bench.outcome("oracle")


@pytest.fixture
def watched(bench: Bench) -> Iterator[tuple[Bench, Faults]]:
    """The same bench behind a proxy that tells of every request."""
    with faulty_proxy(bench.port) as (port, faults):
        yield Bench(bench.home, port), faults


def check_whole(bench: Bench, store: str, oracle: Outcome) -> None:
    """Published once, as the oracle was, and nothing lies about that no snapshot needs."""
    rows, certificate = bench.outcome(store)
    assert [row[1:] for row in rows] == [row[1:] for row in oracle[0]]
    assert certificate == oracle[1]
    opened = open_store(bench.uri(store))
    assert len(opened.folders("snapshots")) == 1
    bench.run(bench.command("verify", "--store", bench.uri(store)))
    keep = ["--keep-last", "1", "--keep-days", "0", "--grace", "0"]
    bench.run(bench.command("gc", "--store", bench.uri(store), *keep))
    name = snapshot.current(opened)
    assert name is not None
    needed = {line["path"] for line in snapshot.read_manifest(opened, name)["files"]}
    there = {entry.path for entry in opened.entries() if not entry.path.startswith("runs/")}
    assert there == {*needed, "CURRENT", snapshot.manifest_path(name)}
    assert not opened.folders("runs")


@pytest.mark.parametrize("engine", CLUSTERS)
def test_a_worker_killed_in_every_stage(
    engine: str,
    watched: tuple[Bench, Faults],
    clusters: dict[str, Cluster | str],
    oracle: Outcome,
) -> None:
    """Dask goes on; where the engine fails the job, the same command does."""
    cluster, (bench, faults) = cluster_of(engine, clusters), watched
    store, killed, turn = f"killed-{engine}", set[str](), threading.Lock()
    lost = threading.Event()

    def watch(request: str, port: int) -> None:
        found = re.match(r"PUT .*/(\w+)/\d+\.json", request)
        with turn:
            if found and found[1] in STAGES and found[1] not in killed:
                killed.add(found[1])
                assert cluster.kill_client(port), f"{request} came from no worker"
                lost.set()

    faults.watch = watch
    command = bench.index(store, bench.uri("many"), cluster.runner, **BIG)
    for _ in STAGES:
        if not cluster.retries:
            lost.clear()
            *_, last = end_after(lost, bench.start(command)).splitlines()
            assert last.startswith("lookalike: "), last
    bench.run(command)
    assert killed == set(STAGES)
    check_whole(bench, store, oracle)


def end_after(lost: threading.Event, process: subprocess.Popen[str]) -> str:
    """What a command said that has to end with status 1 as a worker was lost.

    By chance, Prism does not notice that, and waits for ever; then the command is stopped.
    """
    assert lost.wait(200)
    try:
        said, _ = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.terminate()
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 1, said
    return said


@pytest.mark.parametrize("engine", CLUSTERS)
def test_the_launcher_killed_at_some_moments(
    engine: str,
    watched: tuple[Bench, Faults],
    clusters: dict[str, Cluster | str],
    oracle: Outcome,
) -> None:
    """Its workers go on for a while, beside those of the command that continues the run."""
    cluster, (bench, faults) = cluster_of(engine, clusters), watched
    store, moments = f"launched-{engine}", [*STAGES, "CURRENT"]
    command = bench.index(store, bench.uri("many"), cluster.runner, **BIG)
    with ExitStack() as stack:
        for moment in moments:
            process = bench.start(command)
            stack.callback(kill_group, process.pid)  # a server of Prism's outlives its launcher
            faults.watch = kill_at(moment, store, process.pid)
            said, _ = process.communicate(timeout=300)
            assert process.returncode == -signal.SIGKILL, said
        faults.watch = lambda request, port: None
        bench.run(command)
    check_whole(bench, store, oracle)


def kill_group(number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)


def kill_at(moment: str, store: str, process: int) -> Callable[[str, int], None]:
    """Kills a process when something of a stage is about to be written for the third time."""
    seen: list[str] = []

    def watch(request: str, port: int) -> None:
        if re.match(rf"PUT .*{store}.*{moment}", request):
            seen.append(request)
            if len(seen) == (1 if moment in ("CURRENT", "grouped") else 3):
                os.kill(process, signal.SIGKILL)

    return watch
