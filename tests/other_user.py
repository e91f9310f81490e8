"""Another user of this machine, with a home, a folder for temporary files and a Python of its own.

What workers of an engine are on another machine: processes that see nothing of the launching user's
folders. Only root can start them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.documented import ROOT

_USER = 65534  # nobody
_SIGHT = "import apache_beam, lookalike, transforms"


class OtherUser:
    """One whose processes end with the block that it is made for."""

    def __init__(self, root: Path, python: Path) -> None:
        self.python, self._root = python, root
        self._started: list[subprocess.Popen[bytes]] = []
        self.home, self.temporary = root / "home", root / "tmp"
        (root / "bin").mkdir()
        (root / "bin" / "python").symlink_to(python)  # which pools of workers start by this name
        for folder in (self.home, self.temporary):
            folder.mkdir(mode=0o700)
            os.chown(folder, _USER, _USER)
        installed = [path for path in sys.path if path.endswith("site-packages")]
        self.environment = {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "LOGNAME": "nobody",
            "PATH": os.pathsep.join([str(root / "bin"), "/usr/bin", "/bin"]),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *installed]),
            "LD_LIBRARY_PATH": str(python.parent.parent / "lib"),  # of the copy, where it is one
            "PYTHONDONTWRITEBYTECODE": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }

    def start(self, arguments: Sequence[str], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start Python in the background; what it says goes to a file in its home."""
        with open(self._root / f"log-{len(self._started)}", "wb") as log:
            process = subprocess.Popen(
                [self.python, *arguments],
                env={**self.environment, **more},
                cwd="/",
                user=_USER,
                group=_USER,
                extra_groups=[],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started.append(process)
        return process

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run code to its end."""
        return subprocess.run(
            [self.python, "-c", code],
            env=self.environment,
            cwd="/",
            user=_USER,
            group=_USER,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=120,
        )

    def logs(self) -> str:
        """What its processes said."""
        return "\n".join(path.read_text(errors="replace") for path in self._root.glob("log-*"))

    def end(self) -> None:
        """Kill what is left of it."""
        for process in self._started:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait()


@contextmanager
def other_user() -> Iterator[OtherUser]:
    """Such a user; the test is skipped where there can be none."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can start workers as another user")
    root = Path(mkdtemp(prefix="lookalike-other-"))
    root.chmod(0o755)
    try:
        user = OtherUser(root, _python(root))
        seen = user.run(_SIGHT)
        if seen.returncode:
            pytest.skip(f"another user cannot run what is installed: {seen.stderr[-300:]}")
        try:
            yield user
        finally:
            user.end()
    finally:
        shutil.rmtree(root)


def _python(root: Path) -> Path:
    """An interpreter that everybody may run: a copy where the own one lies in a closed folder."""
    own = Path(sys.base_prefix)
    if all(folder.stat().st_mode & 0o001 for folder in (own, *own.parents)):
        return Path(sys._base_executable)  # type: ignore[attr-defined]
    copy = root / "python"
    shutil.copytree(own, copy, symlinks=True, copy_function=_link, ignore=_left_out)
    return copy / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _left_out(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("site-packages", "test", "__pycache__")]
