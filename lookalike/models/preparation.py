"""Making models ready: in processes of their own, which alone load TensorFlow, and once.

What these find out lies in the cache of this machine, by the model's fingerprint, so that
every later run, and every command that embeds, starts without TensorFlow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lookalike.cache_folder import cache_folder
from lookalike.errors import RequestError, one_line
from lookalike.models import openvino_engine
from lookalike.models.prepared import Prepared


@dataclass(frozen=True)
class Task:
    """One model to be made ready.

    Attributes:
        builtin: The handle of a shipped feature, which is exported first, or of a function; "" for
            another model.
        model: Folder of the SavedModel.
        target: Folder that gets the files of `prepared`, below the model's fingerprint.
        key: Of these files.
        signature: As configured, and so the next two.
        output: Key of the output.
        input_size: Height and width.
        options: Of the feature.
    """

    builtin: str
    model: str
    target: str
    key: str
    signature: str | None
    output: str | None
    input_size: tuple[int, int] | None
    options: Mapping[str, Any] = field(default_factory=dict)


def models_cache(work: Path) -> Path:
    """The folder of models made ready on this machine; below `work` where there can be none."""
    folder = cache_folder() / "models"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:  # a read-only home, no home: it is made ready again every time
        pass
    return work / "cache"


def is_current(found: Prepared | None) -> bool:
    """Whether what is known is all that can be known here: OpenVINO may have been installed."""
    if found is None:
        return False
    return found.info.reference == "python" or bool(found.openvino or openvino_engine.missing())


def prepare(tasks: Sequence[Task]) -> None:
    """Make models ready, in two processes where there are several.

    Raises:
        RequestError: A model cannot be loaded, or is none that this library can call.
    """
    lots = [lot for lot in (tasks[0::2], tasks[1::2]) if lot]
    running = [_start(lot) for lot in lots]
    try:
        for process in running:
            _finish(process)
    finally:
        for process in running:
            process.kill()
            process.wait()


def _start(tasks: Sequence[Task]) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    with tempfile.TemporaryFile() as asked:  # a pipe would have to be written beside the others
        asked.write(json.dumps([asdict(task) for task in tasks]).encode())
        asked.seek(0)
        return subprocess.Popen(
            [sys.executable, "-m", "lookalike.models.prepare_process"],
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
        )


def _finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process, and tell what it tells."""
    told, stderr = process.communicate()
    if process.returncode == 0:
        return
    if process.returncode == -signal.SIGALRM:
        raise RequestError("a function of yours takes too long for one picture of its size")
    try:
        wrong = json.loads(told)["request_error"]
    except (ValueError, KeyError, TypeError):
        last = one_line(ValueError(stderr.decode(errors="replace")[-300:]))
        raise RuntimeError(
            f"the process that makes models ready ended with status {process.returncode}: {last}"
        ) from None
    raise RequestError(wrong)
