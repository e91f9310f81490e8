"""Engines whose workers are processes of another user, which see nothing of the launching one's."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lookalike.pipelines.engines import find_prism
from tests.other_user import OtherUser
from tests.s3_server import free_port

PRISM = find_prism()  # before the tests have a cache of their own


@dataclass
class Cluster:
    """An engine that is ready.

    Attributes:
        runner: What a config says of it.
        user: Whose its workers are.
        retries: Whether it goes on when a worker is lost.
    """

    runner: Mapping[str, Any]
    user: OtherUser
    retries: bool

    def kill_client(self, port: int) -> bool:
        """Kill the worker whose connection comes from a port of this machine; is there one?"""
        for process in worker_processes(self.user):
            if port in _ports_of(process):
                os.kill(process, signal.SIGKILL)
                return True
        return False


@contextmanager
def prism(user: OtherUser, environment: Mapping[str, str]) -> Iterator[Cluster]:
    """Prism, started for each pipeline by Beam, with a pool of workers."""
    if PRISM is None:
        pytest.skip("Prism is not built here: make test-engines builds it where Go is installed")
    port = free_port()
    pool = ["-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    user.start(pool, environment)
    _wait_for(lambda: _answers(port), user)
    runner = {
        "name": "prism",
        "prism_location": str(PRISM),
        "environment_type": "EXTERNAL",
        "environment_config": f"localhost:{port}",
    }
    yield Cluster(runner, user, retries=False)


@contextmanager
def dask(user: OtherUser, environment: Mapping[str, str]) -> Iterator[Cluster]:
    """A scheduler of Dask's and two workers."""
    if find_spec("distributed") is None:
        pytest.skip("Dask is not installed here: pip install 'lookalike[dask]'")
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    command = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    user.start([*command, "--no-dashboard"], environment)
    _wait_for(lambda: _answers(port), user)
    command = ["-m", "distributed.cli.dask_worker", address, "--nworkers", "2", "--nthreads", "1"]
    user.start([*command, "--no-dashboard", "--memory-limit", "0"], environment)
    from distributed import Client

    with Client(address) as client:
        client.wait_for_workers(2, timeout=60)
    yield Cluster({"name": "dask", "dask_client_address": address}, user, retries=True)


CLUSTERS = {"prism": prism, "dask": dask}


def worker_processes(user: OtherUser) -> Iterator[int]:
    """Numbers of all processes of the user that this one's tests have started."""
    home = f"HOME={user.home}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # others', or ended
            if home in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)


def _ports_of(process: int) -> set[int]:
    """Local ports of a process's connections."""
    inodes = set()
    with suppress(OSError):  # it ended
        for name in os.listdir(f"/proc/{process}/fd"):
            with suppress(FileNotFoundError):  # closed
                kind, _, inode = os.readlink(f"/proc/{process}/fd/{name}").partition(":")
                inodes |= {inode.strip("[]")} if kind == "socket" else set()
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in inodes}


def _answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(ready: Callable[[], bool], user: OtherUser) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline, user.logs()[-3000:]
        time.sleep(0.1)
