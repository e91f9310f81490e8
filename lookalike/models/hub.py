"""Models from the web: fetched by a process of its own, and the cache of TF-Hub kept in order.

tensorflow_hub does the work, and brings TensorFlow along, which a launching process does without.
Its cache (`$TFHUB_CACHE_DIR/sha1(handle)`) is looked into first: what is there whole is used with
no network and no process. Of it, tensorflow_hub trusts a folder of which something is left, and
waits twenty minutes for a lock that a dead process holds.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from lookalike.errors import RequestError
from lookalike.models import child

TIMEOUT_S = 30.0
"""Longest silence of a server before a download is given up."""

DEADLINE_S = 4 * 3600.0
"""Longest time that fetching one model may take, however steadily its bytes trickle in."""

_FORMATS = ("AUTO", "COMPRESSED", "UNCOMPRESSED")


def cached(handle: str, say: Callable[[str], None]) -> Path | None:
    """The folder that TF-Hub's cache holds for a handle, if it is whole.

    What keeps tensorflow_hub from fetching it anew is removed: a folder of which files are missing
    (those that clean /tmp leave such behind), and the lock of a process that is dead.
    """
    cache = _cache()
    if cache is None:
        return None
    folder = cache / hashlib.sha1(handle.encode()).hexdigest()  # its name for it
    if folder.is_dir():
        missing = _missing(folder)
        if not missing:
            return folder
        say(
            f"the folder {folder}, which TFHUB_CACHE_DIR holds for {handle}, has no {missing}: "
            "it is fetched anew"
        )
        shutil.rmtree(folder, ignore_errors=True)
    _release(folder, say)
    return None


def fetch(handle: str, scratch: Path) -> str:
    """Fetch a model into TF-Hub's cache, or kagglehub's, or the folder given.

    Args:
        handle: `https://…`, `http://…` or `kaggle:owner/model/framework/variation[/version]`.
        scratch: An empty folder, for what is kept in no cache.

    Returns:
        The model's folder, or its address on other storage.

    Raises:
        RequestError: It cannot be had; the message gives the cause.
    """
    form = os.environ.get("TFHUB_MODEL_LOAD_FORMAT") or "AUTO"
    if form not in _FORMATS:
        raise RequestError(f"TFHUB_MODEL_LOAD_FORMAT is one of {', '.join(_FORMATS)}, not {form!r}")
    if handle.startswith("kaggle:"):
        _check_kaggle(handle)
    cache = _cache()
    writable = cache and _is_writable(cache)
    try:
        return str(
            child.ask(
                "lookalike.models.hub_process",
                {"handle": handle, "scratch": str(scratch), "timeout_s": TIMEOUT_S},
                timeout=DEADLINE_S,
                env={"TFHUB_CACHE_DIR": str(cache if writable else scratch / "cache")},
                show=bool(os.environ.get("TFHUB_DOWNLOAD_PROGRESS")),
            )
        )
    except subprocess.TimeoutExpired as error:
        raise RequestError(
            f"cannot download {handle}: it is not done within {DEADLINE_S:,g} s"
        ) from error


def _check_kaggle(handle: str) -> None:
    if not re.fullmatch(r"kaggle:[^/]+/[^/]+/[^/]+/[^/]+(/\d+)?", handle):
        raise RequestError(
            f"{handle!r} is not kaggle:owner/model/framework/variation or "
            "kaggle:owner/model/framework/variation/version"
        )
    if find_spec("kagglehub") is None:
        raise RequestError(f"{handle} needs kagglehub: pip install 'lookalike[kaggle]'")


def _cache() -> Path | None:
    """The folder of TF-Hub's cache; None where none on this machine is configured.

    Where none is, tensorflow_hub takes one in /tmp, in which anyone could lay a model.
    """
    variable = os.environ.get("TFHUB_CACHE_DIR", "")
    if not variable or "://" in variable:
        return None
    return Path(variable).expanduser().absolute()


def _is_writable(cache: Path) -> bool:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(cache, os.W_OK | os.X_OK)


def _missing(folder: Path) -> str:
    """A file that a model must have and this folder has not; "" where there is none."""
    roots = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    if any(path.suffix.lower() == ".onnx" for root in roots for path in root.iterdir()):
        return ""
    models = [root for root in roots if (root / "saved_model.pb").is_file()]
    for model in models:
        variables = model / "variables"
        there = set(os.listdir(variables)) if variables.is_dir() else set()
        parts = {int(one[1]) for name in there if (one := re.search(r"-of-(\d{5})$", name))}
        wanted = {
            f"variables.data-{part:05d}-of-{count:05d}" for count in parts for part in range(count)
        } | ({"variables.index"} if there else set())
        if absent := sorted(wanted - there):
            return f"variables/{absent[0]}"
    return "" if models else "saved_model.pb"


def _release(folder: Path, say: Callable[[str], None]) -> None:
    """Remove the lock on a folder of the cache, if its holder was a process here and is dead."""
    lock = folder.with_name(f"{folder.name}.lock")
    try:
        host, process, download = lock.read_text(encoding="utf-8").rsplit(".", 2)
        if host != socket.gethostname():
            return
        os.kill(int(process), 0)
    except ProcessLookupError:
        say(f"the lock {lock} is of process {process}, which is dead: it is removed")
        lock.unlink(missing_ok=True)
        shutil.rmtree(folder.with_name(f"{folder.name}.{download}.tmp"), ignore_errors=True)
    except (OSError, ValueError):  # no lock, or none to be judged: tensorflow_hub waits for it
        return
