"""autofaiss, in an environment of its own: it needs older Faiss, numpy and Arrow than the project.

What the environment runs of this is `build` and `serve`, with releases of libraries of its time.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.child import RefusedError
from benchmarks.index.way_wiki import INDEX_FILE, Plain

_ID_BYTES = 8
_AVAILABLE_MIB = (2048, 4096, 8192, 16384, 32768)
REQUIREMENTS = (
    "autofaiss==2.18.0",
    "faiss-cpu==1.9.0.post1",
    "numpy==1.26.*",
    "pyarrow==19.*",
    "embedding-reader<2",
    "setuptools<82",
)
_PYTHONS = ("python3.11", "python3.10")
_CHECK = "import sys, autofaiss, faiss; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))"


def default_folder() -> Path:
    """Inside the project's own environment where there is one."""
    own = Path(sys.prefix) if sys.prefix != sys.base_prefix else Path(".venv")
    return own / "rivals" / "autofaiss"


def environment(folder: Path) -> tuple[Path | None, str]:
    """The environment's interpreter, made if it is not there; or None and why not."""
    python = folder / "bin" / "python"
    if _works([str(python), "-c", _CHECK]):
        return python, ""
    found = next(filter(None, map(_usable, (sys.executable, *_PYTHONS))), None)
    if found is None:
        return None, "autofaiss needs Python 3.10 or 3.11, and there is none"
    print(f"installing autofaiss into {folder}", file=sys.stderr, flush=True)
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [found, "-m", "venv", "--clear", str(folder)],
        [str(python), *pip, *REQUIREMENTS],
        [str(python), "-c", _CHECK],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            return None, f"autofaiss cannot be installed: {lines[-1]}"
    return python, ""


def _usable(name: str) -> str | None:
    path = shutil.which(name)
    check = "import sys, venv; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))"
    return path if path and _works([path, "-c", check]) else None


def _works(command: list[str]) -> bool:
    try:
        return not subprocess.run(command, capture_output=True).returncode
    except OSError:
        return False


def build(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """Let it choose and build within the memory given; more to build with if it refuses less."""
    import autofaiss  # type: ignore[import-not-found]

    memory = task["rows"] * (task["code_bytes"] + _ID_BYTES)
    for available in _AVAILABLE_MIB:
        index, told = autofaiss.build_index(
            str(Path(task["array"]).parent),
            index_path=str(out / INDEX_FILE),
            index_infos_path=str(out / "infos.json"),
            max_index_memory_usage=f"{memory}B",
            current_memory_available=f"{available}MB",
            metric_type="ip",
            nb_cores=task["cores"],
        )
        if index is not None:
            return {
                "key": str(told["index_key"]),
                "bytes": (out / INDEX_FILE).stat().st_size,
                "chosen": str(told["index_param"]),
                "memory_given": available << 20,
            }
    raise RefusedError(f"it refuses to build in {_AVAILABLE_MIB[-1]:,} MiB of memory")


def serve(task: dict[str, Any], out: Path) -> Plain:
    """Open what was built."""
    return Plain(out / INDEX_FILE)
