"""Killed, failed or cut short at the nth change of the store: what is published stands.

`make faults` tries every fault; here it is some of each kind.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.backend import Backend
from faults.bucket import BucketBackend
from faults.folder import FolderBackend, compiler
from faults.injector import Fault
from faults.power_loss import Disk, disorder
from faults.trials import Night, Nights, try_fault

from lookalike.errors import StoreWriteError
from lookalike.store import durable


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    if sys.platform != "linux" or compiler() is None:
        pytest.skip("needs Linux and a C compiler")
    found = FolderBackend(tmp_path_factory.mktemp("folder"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    pytest.importorskip("obstore")
    found = BucketBackend(tmp_path_factory.mktemp("bucket"))
    yield found
    found.close()


@pytest.fixture(scope="module", params=["folder", "bucket"])
def nights(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Night, Night]:
    """Of vectors, which need no model."""
    backend: Backend = request.getfixturevalue(request.param)
    both = Nights(backend, tmp_path_factory.mktemp("faults"), "vectors")
    first = both.first()
    return first, both.second(first)


def try_faults(night: Night, faults: list[Fault]) -> None:
    for fault in faults:
        try:
            try_fault(night, fault)
        except Exception as error:
            raise AssertionError(f"{fault}: {error}") from error


def test_the_second_night_survives(nights: tuple[Night, Night]) -> None:
    try_faults(nights[1], nights[1].backend.some_faults(nights[1].counts))


def test_publication_survives_whatever_happens_to_it(nights: tuple[Night, Night]) -> None:
    """The report gets its name, then the manifest, and then CURRENT."""
    names = ["report.html", "manifest.json", "CURRENT"]
    operations, backend = nights[1].operations, nights[1].backend
    kind = "rename" if backend.name == "folder" else "PUT"
    paths = [path for one, path in operations if one == kind]
    places = [at for at, path in enumerate(paths, 1) if path.endswith(tuple(names))]
    assert [paths[at - 1].rpartition("/")[2] for at in places] == names
    actions = {"kill", "killed", "kill after", "kill, late"}
    tried = [
        Fault(kind, action, at)
        for at in places
        for action in backend.points[kind]
        if action in actions
    ]
    assert len(tried) >= 4
    try_faults(nights[1], tried)


@pytest.mark.parametrize("nights", ["folder"], indirect=True)
def test_everything_is_on_disk_before_what_tells_of_it(nights: tuple[Night, Night]) -> None:
    for night in nights:
        assert disorder(night.trace) == []
        renamed = [path for kind, path in night.operations if kind == "rename"]
        assert [Path(path).name for path in renamed[-2:]] == ["manifest.json", "CURRENT"]


# --- the tools themselves -------------------------------------------------------------------------


def trace_of(*lines: str) -> str:
    return "".join(line.replace(" ", "\t").ljust(1) + "\n" for line in lines)


WRITTEN = ("create /d/.a.tmp  0", "write /d/.a.tmp  9", "fsync /d/.a.tmp  0")
NAMED = ("rename /d/.a.tmp /d/a 0", "fsync /d  0")
LINKED = ("link /d/.a.tmp /d/a 0", "unlink /d/.a.tmp  0", "fsync /d  0")
NEXT = ("create /d/.b.tmp  0", "fsync /d/.b.tmp  0", "rename /d/.b.tmp /d/b 0")


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ((*WRITTEN, *NAMED, *NEXT), []),
        ((*WRITTEN[:2], *NAMED, *NEXT), ["/d/a is named before its fsync"]),
        ((*WRITTEN, NAMED[0], *NEXT), ["/d/a is not durable when /d/b gets its name"]),
        ((*WRITTEN, *LINKED, *NEXT), []),
        ((*WRITTEN[:2], *LINKED, *NEXT), ["/d/a is named before its fsync"]),
        ((*WRITTEN, *LINKED[:2], *NEXT), ["/d/a is not durable when /d/b gets its name"]),
        ((*WRITTEN, NAMED[0], "write /d/a  1", NAMED[1], *NEXT), ["/d/a is not durable"]),
        (
            (
                "mkdir /d/sub  0",
                "create /d/sub/.x  0",
                "rename /d/sub/.x /d/sub/x 0",
                "fsync /d/sub  0",
                *NEXT,
            ),
            ["/d/sub/x is not durable"],
        ),
    ],
)
def test_disorder_is_found(lines: tuple[str, ...], found: list[str], tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(trace_of(*lines))
    told = disorder(trace)
    assert len(told) >= len(found)
    assert bool(told) == bool(found)
    assert all(one in " ".join(told) for one in found)


def test_what_is_written_after_the_last_fsync_may_be_lost() -> None:
    disk = Disk()
    for line in ("create /d/a  0", "write /d/a  5", "fsync /d/a  0", "fsync /d  0"):
        what, path, other, size = line.split(" ")
        disk.apply(what, path, other, int(size))
    assert disk.is_sure("/d/a")
    disk.apply("write", "/d/a", "", 1)
    assert not disk.is_sure("/d/a")


# --- storage says which file, and what to do ------------------------------------------------------


def test_a_file_that_cannot_be_written_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(StoreWriteError, match=r"x: cannot be written: no space .*; make"):
        durable.write_bytes(tmp_path, "x", b"data")
    assert list(tmp_path.iterdir()) == []
