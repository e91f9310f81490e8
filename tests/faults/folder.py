"""Stores in folders: `shim.c`, loaded into a process before its C library, sees every change."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import ClassVar

from faults.backend import Backend
from faults.injector import Ended, Fault, Injector, plain
from faults.scenarios import Scenario
from lookalike.store.objects import Store, open_store

HERE = Path(__file__).parent

ERRORS = {"eio": "input/output error", "full": "no space left", "denied": "permission denied"}
"""What those say that do not kill; all the others do."""


def compiler() -> str | None:
    """A C compiler, or None."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


@lru_cache(maxsize=1)
def shim() -> Path:
    """The compiled shim."""
    library = Path(mkdtemp(prefix="lookalike-faults-")) / "shim.so"
    command = [compiler(), "-shared", "-fPIC", "-O1", "-o", library, HERE / "shim.c", "-ldl"]
    subprocess.run([str(word) for word in command], check=True)
    return library


def environment(**more: str) -> dict[str, str]:
    """Of a process in which faults can happen to files."""
    return plain(LD_PRELOAD=str(shim()), **more)


def armed(root: Path, fault: Fault, trace: Path | None = None) -> str:
    """The shim's orders."""
    words = (root, fault.kind, fault.action, fault.nth, trace or "")
    return "\t".join(str(word) for word in words)


def files_below(root: Path) -> Iterator[str]:
    """Paths of all files below a folder, those half written among them."""
    return (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


class FolderBackend(Backend):
    """Folders below one; `shim.c` says what the words mean."""

    name = "folder"
    points: ClassVar = {
        "write": ("kill", "torn", "eio", "full"),
        "fsync": ("kill", "eio"),
        "rename": ("kill", "killed", "eio"),
        "open": ("denied",),
        "unlink": ("kill",),
    }
    _KINDS: ClassVar = {"create": "open", "link": "rename"}

    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, 0
        self._injector = Injector(environment())

    def fresh(self, before: Store | None) -> Store:
        """See `Backend.fresh`."""
        self._made += 1
        place = self._folder / f"{self._made}"
        place.mkdir(parents=True)
        if before:
            shutil.copytree(before.name, place / "store")
        return open_store(place / "store")

    def discard(self, store: Store) -> None:
        """See `Backend.discard`."""
        shutil.rmtree(Path(store.name).parent)

    def run(
        self, scenario: Scenario, store: Store, fault: Fault, trace: Path | None = None
    ) -> Ended:
        """See `Backend.run`."""
        root = Path(store.name)
        # What happens to the folder around it matters too: the store itself is made there.
        orders = armed(root.parent if trace else root, fault, trace)
        return self._injector.run(scenario.arguments(store.name), orders)

    def check_ended(self, fault: Fault, ended: Ended) -> None:
        """Killed, or ended with status 1 and one line that says why."""
        if fault.action not in ERRORS:
            assert ended.status == -9, f"not killed: {ended}"
            return
        assert ended.status == 1, f"status: {ended}"
        last = ended.said.splitlines()[-1]
        assert last.startswith("lookalike: "), f"said: {ended.said}"
        assert ERRORS[fault.action] in last.lower(), f"said: {last}"
        assert "Traceback" not in ended.said, ended.said

    def operations(self, trace: Path, store: Store) -> list[tuple[str, str]]:
        """See `Backend.operations`."""
        root, found = Path(store.name), []
        for line in trace.read_text().splitlines():
            what, path, other, _ = line.split("\t")
            if Path(path).is_relative_to(root):
                found.append((self._KINDS.get(what, what), other or path))
        return found

    def paths(self, store: Store) -> Iterable[str]:
        """See `Backend.paths`."""
        return files_below(Path(store.name))

    def close(self) -> None:
        """See `Backend.close`."""
        self._injector.close()
