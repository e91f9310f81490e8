"""Making models ready: in processes of their own, which alone load TensorFlow, and once.

What these find out lies in the cache of this machine, by the model's fingerprint, so that
every later run, and every command that embeds, starts without TensorFlow.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lookalike.cache_folder import cache_folder
from lookalike.errors import RequestError
from lookalike.models import child, openvino_engine
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
    lots = [[asdict(task) for task in lot] for lot in (tasks[0::2], tasks[1::2]) if lot]
    try:
        child.ask_all("lookalike.models.prepare_process", lots)
    except child.ChildError as error:
        if error.status == -signal.SIGALRM:
            raise RequestError(
                "a function of yours takes too long for one picture of its size"
            ) from error
        raise
