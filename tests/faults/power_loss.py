"""What is sure to be on the disk at any instant of a traced run, if the power goes then.

Of a file, what was written before its last fsync; of a folder, the names it had at its last fsync.
Everything else may be there, or not, or in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath


@dataclass
class _File:
    written: int = 0
    synced: int = 0


@dataclass
class Disk:
    """A folder's files while a trace is replayed.

    What the trace does not make was there before, and is sure.

    Attributes:
        names: Of files and folders now: path -> file, or None for a folder.
        sure: The same, as of the last fsync of the folder that each is in.
    """

    names: dict[str, _File | None] = field(default_factory=dict)
    sure: dict[str, _File | None] = field(default_factory=dict)

    def is_sure(self, path: str) -> bool:
        """Whether a file is whole under this name after the power has gone."""
        file = self.names.get(path)
        if file is None or file.synced < file.written or self.sure.get(path) is not file:
            return False
        above = (str(folder) for folder in PurePosixPath(path).parents)
        return all(folder in self.sure for folder in above if folder in self.names)

    def apply(self, what: str, path: str, other: str, size: int) -> None:
        """One line of the trace."""
        if what in ("create", "open"):
            if what == "create" or path not in self.names:
                self.names[path] = _File()
        elif what == "mkdir":
            self.names[path] = None
        elif what == "write":
            if isinstance(file := self.names.get(path), _File):
                file.written += size
        elif what == "fsync":
            self._sync(path)
        elif what == "rename":
            self._move(path, other)
        elif what == "link":
            self.names[other] = self.names[path]
        elif what == "unlink":
            self.names.pop(path, None)

    def _sync(self, path: str) -> None:
        file = self.names.get(path)
        if isinstance(file, _File):
            file.synced = file.written
            return
        for names in (self.sure, self.names):
            below = {name: names[name] for name in names if str(PurePosixPath(name).parent) == path}
            if names is self.sure:
                for name in below:
                    del self.sure[name]
            else:
                self.sure.update(below)

    def _move(self, path: str, other: str) -> None:
        for name in [name for name in self.names if name == path or name.startswith(path + "/")]:
            self.names[other + name[len(path) :]] = self.names.pop(name)


def replay(trace: Path) -> Iterator[tuple[Disk, tuple[str, str, str, int]]]:
    """The disk before each line of a trace, and the line."""
    disk = Disk()
    for line in trace.read_text().splitlines():
        what, path, other, size = line.split("\t")
        yield disk, (what, path, other, int(size))
        disk.apply(what, path, other, int(size))


def disorder(trace: Path) -> list[str]:
    """What a run did too early: every line is something that a loss of power could break.

    A file must be whole on disk before it gets its name, by a rename or a link, and the name must
    be durable before the next file gets one: whatever tells of other files is then later on disk
    than those.
    """
    found: list[str] = []
    named: dict[str, None] = {}
    for disk, (what, path, other, _) in replay(trace):
        if what == "unlink":
            named.pop(path, None)
        if what not in ("rename", "link"):
            continue
        file = disk.names.get(path)
        if file is not None and file.synced < file.written:
            found.append(f"{other} is named before its fsync")
        for name in [name for name in named if not disk.is_sure(name)]:
            found.append(f"{name} is not durable when {other} gets its name")
            del named[name]
        if file is not None:
            named[other] = None
    return found
