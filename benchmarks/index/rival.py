"""The environment that autofaiss needs: an older Faiss, numpy and Arrow than the project's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

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
    for command in (
        [found, "-m", "venv", "--clear", str(folder)],
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *REQUIREMENTS,
        ],
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
