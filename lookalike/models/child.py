"""Work in a process of its own: JSON in and out, errors of the request among them.

For what must not happen in the process that launches a run: TensorFlow is loaded, or a library is
called that may hang for ever.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lookalike.errors import RequestError, one_line


class ChildError(RuntimeError):
    """A process ended without an answer.

    Attributes:
        status: Its exit status, or the negative number of the signal that ended it.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def ask(
    module: str,
    request: Any,
    *,
    timeout: float | None = None,
    env: dict[str, str] | None = None,
    show: bool = False,
) -> Any:
    """Run a module whose `__main__` calls `serve`, and return its answer.

    Args:
        module: Its dotted name.
        request: JSON-able; the module's standard input.
        timeout: Seconds after which it is killed.
        env: Variables of the environment to set for it.
        show: Whether what it prints is passed on to standard error.

    Raises:
        RequestError: As raised there.
        subprocess.TimeoutExpired: It was not done in time.
        ChildError: It ended without an answer.
    """
    (answer,) = ask_all(module, [request], timeout=timeout, env=env, show=show)
    return answer


def ask_all(
    module: str,
    requests: Sequence[Any],
    *,
    timeout: float | None = None,
    env: dict[str, str] | None = None,
    show: bool = False,
) -> list[Any]:
    """Ask a process for each request, all at the same time; see `ask`."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for request in requests:
            running.append(_start(module, request, env or {}, show))
        return [_answer(process, module, timeout) for process in running]
    finally:
        for process in running:
            process.kill()
            with process:  # closes its pipes, and waits for its end
                pass


def _start(module: str, request: Any, env: dict[str, str], show: bool) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    with tempfile.TemporaryFile() as asked:  # a pipe would have to be written beside the others
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        return subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            env={**os.environ, **env, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
        )


def _answer(process: subprocess.Popen[bytes], module: str, timeout: float | None) -> Any:
    """Wait for a process, and tell what it tells."""
    out, said = process.communicate(timeout=timeout)
    try:
        told = json.loads(out)
    except ValueError:
        last = (said or b"").decode(errors="replace")[-300:]
        raise ChildError(
            f"the process {module} ended with status {process.returncode}: "
            f"{one_line(ValueError(last))}",
            process.returncode,
        ) from None
    if "request_error" in told:
        raise RequestError(told["request_error"])
    return told["answer"]


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer the request on standard input, in the process that `ask` started."""
    told = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        found = {"answer": answer(json.load(sys.stdin))}
    except RequestError as error:
        found = {"request_error": str(error)}
    with open(told, "w", encoding="utf-8") as out:
        json.dump(found, out)
