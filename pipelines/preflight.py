"""Can the engine do what a run is going to ask of it? Looked at before any work begins.

Nothing of it costs anything on the direct runner, whose workers are children of this process.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lookalike.errors import RequestError, one_line
from lookalike.pipelines.engines import ENGINES, all_options
from lookalike.pipelines.runner import EngineError, RunnerSpec
from lookalike.records import SourceFile
from lookalike.sight import shown
from lookalike.sources.locating import split_uri
from lookalike.store.objects import Store
from lookalike.store.storage import is_remote, path_from_uri

_ADDRESS = re.compile(r"(?:[a-z]+://)?([\w.-]+|\[[\da-fA-F:.]+\]):(\d+)/?")
_PATIENCE_S = 10.0
_LOOKS_PER_WORKER = 4  # so that every one of them has one, most likely


def ready(runner: RunnerSpec) -> RunnerSpec:
    """The engine, with the number of its workers where it tells.

    Raises:
        RequestError: Something is not installed, not said, or does not answer.
    """
    if runner.here:
        return runner
    engine, told = ENGINES[runner.name], all_options(runner.options, runner.arguments)
    if engine.module:
        try:
            importlib.import_module(engine.module)
        except ImportError as error:
            raise RequestError(
                f"runner {runner.name}: not installed here ({one_line(error)}); "
                f"pip install 'lookalike[{engine.extra}]'"
            ) from error
    for group in engine.needs:
        if not any(told.get(name) for name in group):
            raise RequestError(
                f"runner {runner.name}: needs {' or '.join(group)}, under runner in the config, or "
                f"as --{group[0]} after --"
            )
    for name in engine.addresses:
        _check_answers(runner.name, name, str(told.get(name, "")))
    if runner.name in ("flink", "spark"):
        _check_java(runner.name, told)
    if runner.name == "dask" and not runner.workers:
        return replace(runner, workers=_workers_on_dask(told))
    return runner


def check_places(runner: RunnerSpec, store: Store, first: Iterable[SourceFile | None]) -> None:
    """Do the workers see the folders that a run relies on?

    Args:
        runner: As `ready` gave it.
        store: The store.
        first: One file of each source.

    Raises:
        RequestError: A worker does not; it names host, path and remedy.
        EngineError: The engine could not be asked.
    """
    if not runner.here:
        check_folders(runner, [store], list(_local(first)))


def check_folders(
    runner: RunnerSpec, stores: Sequence[Store], files: Sequence[tuple[str, int]] = ()
) -> None:
    """The same of stores that are written to, and of files; of none of here, nothing is asked."""
    folders = [store.name for store in stores if not is_remote(store.name)]
    if runner.here or not (folders or files):
        return
    if runner.name == "dataflow":
        raise RequestError(
            f"{[*folders, *(name for name, _ in files)][0]}: a folder of this machine, which no "
            "worker of Dataflow sees; name a place on object storage (gs://…)"
        )
    from lookalike.pipelines.engine import run
    from lookalike.transforms.preflight import SeePlaces

    with shown(folders, files) as sight:
        see = SeePlaces(sight, looks=_LOOKS_PER_WORKER * runner.processes)
        try:
            run(lambda pipeline: pipeline | see, runner)
        except EngineError as error:
            if error.kind.endswith("RequestError"):
                raise RequestError(str(error)) from error
            raise


def _local(files: Iterable[SourceFile | None]) -> Iterator[tuple[str, int]]:
    """Those of this machine, or what they lie in: path and size."""
    for file in files:
        if file is not None and not file.problem:
            uri = split_uri(file.uri)[0] or file.uri
            if not is_remote(uri):
                path = os.fsdecode(path_from_uri(uri))
                yield path, os.stat(path).st_size


def _check_answers(runner: str, option: str, value: str) -> None:
    """Does anybody answer at an address? What is none ([local], yarn) is the engine's to judge."""
    if not (found := _ADDRESS.fullmatch(value)):
        return
    host, port = found[1].strip("[]"), int(found[2])
    try:
        socket.create_connection((host, port), _PATIENCE_S).close()
    except OSError as error:
        raise RequestError(
            f"runner {runner}: nobody answers at {option} {value}: {error.strerror or error}; is "
            "it started, and can this machine reach it?"
        ) from error


def _check_java(runner: str, told: dict[str, Any]) -> None:
    """Beam starts a job server in Java, unless one is named, or the cluster takes jobs itself."""
    java = str(told.get("job_server_java_launcher") or "java")
    itself = told.get("job_endpoint") or told.get(f"{runner}_submit_uber_jar")
    if not itself and shutil.which(java) is None:
        raise RequestError(
            f"runner {runner}: Beam's job server needs Java, and there is no {java} here; install "
            f"it, name a running job server (job_endpoint), or set {runner}_submit_uber_jar: true"
        )


def _workers_on_dask(told: dict[str, Any]) -> int:
    """Threads of all workers there are; 0 where they come when there is work."""
    from distributed import Client

    address = told.get("dask_client_address")
    if not address:
        return 0
    try:
        with Client(address, timeout=_PATIENCE_S, set_as_default=False) as client:
            return sum(client.nthreads().values())
    except OSError as error:
        raise RequestError(
            f"runner dask: no scheduler of Dask's answers at {address}: {one_line(error)}"
        ) from error
