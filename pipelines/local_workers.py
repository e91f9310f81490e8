"""Beam's local engine, FnApiRunner, with worker processes whose end is noticed.

Beam's own way of starting them passes a command through a shell and waits for ever for a worker
that was killed (by the system, for want of memory, say). Here such a run ends, and says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from google.protobuf import (  # type: ignore[import-untyped, unused-ignore]
    json_format,
    text_format,
)

import lookalike
from lookalike.pipelines import logs
from lookalike.pipelines.runner import EngineError, WorkerDiedError

_URN = "lookalike:env:process:v1"
_LOOK_EVERY_S = 0.2
_PATIENCE_S = 5.0  # until the engine has ended after its workers


class WorkerEnvironment(SubprocessSDKEnvironment):
    """A worker process per core, started by `_Worker`."""

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        """Name the kind of environment."""
        return _URN, self.command_string.encode()


_workers: list[_Worker] = []  # of the pipeline that runs; a process runs one at a time


@WorkerHandler.register_environment(_URN, bytes)  # type: ignore[untyped-decorator, unused-ignore]
class _Worker(GrpcWorkerHandler):
    """Beam's handler of one worker, which is a child process."""

    def __init__(self, payload: bytes, state: Any, provision_info: Any, server: Any) -> None:
        super().__init__(state, provision_info, server)
        self.process: subprocess.Popen[bytes] | None = None

    def start_worker(self) -> None:
        root = str(Path(lookalike.__file__).resolve().parent.parent)
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        control = self.control_api_service_descriptor()
        beams_log = self.logging_api_service_descriptor()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(beams_log),
            "PIPELINE_OPTIONS": json_format.MessageToJson(
                self.provision_info.provision_info.pipeline_options
            ),
            "WORKER_ID": self.worker_id,
        }
        _workers.append(self)
        logged, log = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lookalike.pipelines.worker", str(os.getpid()), str(log)],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=(log,),
        )
        os.close(log)
        self._log = logs.log_from(logged)

    def stop_worker(self) -> None:
        if self.process is not None:
            self.process.wait()
            self._log.join(_PATIENCE_S)


def finish(execute: Callable[[], Any]) -> Any:
    """Run the engine to its end, in a thread, so that this one can look after the workers.

    Returns:
        What `execute` returns.

    Raises:
        WorkerDiedError: A worker process ended that should not have.
    """
    results: list[Any] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            results.append(execute())
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    _workers.clear()
    usual = threading.excepthook
    threading.excepthook = lambda told: None if _lost_connection(told) else usual(told)
    threading.Thread(target=work, name="engine", daemon=True).start()
    try:
        while not ended.wait(_LOOK_EVERY_S):
            for worker in _workers:
                status = worker.process.poll() if worker.process else None
                if status and not ended.wait(1):  # else the engine knows the reason
                    raise WorkerDiedError(_how_it_ended(status))
    finally:
        if not ended.is_set():  # lost, or interrupted
            _stop_all()
            ended.wait(_PATIENCE_S)
        threading.excepthook = usual
    if errors:
        raise errors[0]
    return results[0]


def _lost_connection(told: threading.ExceptHookArgs) -> bool:
    """The engine's threads end so when a worker ends; why that did is told once, at the end."""
    return issubclass(told.exc_type, grpc.RpcError)


def _how_it_ended(status: int) -> str:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    memory = " (out of memory? fewer runner.workers need less)" if status == -9 else ""
    return f"a worker process {how}{memory}"


def _stop_all() -> None:
    """Kill the workers and let go of everything that waits for them."""
    for worker in _workers:
        if worker.process:
            worker.process.kill()
            worker.process.wait()
        worker.control_conn.abort(EngineError("stopped"))
