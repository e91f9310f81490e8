"""Killed, failed or cut short at the nth change of the store: what is published stands.

`make faults` tries every fault; here it is some of each kind.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.injector import POINTS, Fault, Injector, compiler, count_operations
from faults.power_loss import Disk, disorder
from faults.trials import Night, Nights, try_fault

from lookalike.errors import StoreWriteError
from lookalike.store import files as store_files

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or compiler() is None, reason="needs Linux and a C compiler"
)


@pytest.fixture(scope="module")
def injector() -> Iterator[Injector]:
    found = Injector()
    yield found
    found.close()


@pytest.fixture(scope="module")
def nights(injector: Injector, tmp_path_factory: pytest.TempPathFactory) -> tuple[Night, Night]:
    """Of vectors, which need no model."""
    both = Nights(injector, tmp_path_factory.mktemp("faults"), "vectors")
    first = both.first()
    return first, both.second(first)


def some(night: Night) -> list[Fault]:
    """Of every kind and action one, each at another place."""
    places = count_operations(night.trace, night.store)
    pairs = [(kind, action) for kind, actions in POINTS.items() for action in actions]
    return [
        Fault(kind, action, 1 + places[kind] * (2 * number + 1) // (2 * len(pairs)))
        for number, (kind, action) in enumerate(pairs)
    ]


def test_the_second_night_survives(
    injector: Injector, nights: tuple[Night, Night], tmp_path: Path
) -> None:
    for fault in some(nights[1]):
        try:
            try_fault(injector, nights[1], fault, tmp_path / "store")
        except Exception as error:
            raise AssertionError(f"{fault}: {error}") from error


def test_publication_survives_every_kill(
    injector: Injector, nights: tuple[Night, Night], tmp_path: Path
) -> None:
    """The last renames are those of the manifest and of CURRENT."""
    renames = count_operations(nights[1].trace, nights[1].store)["rename"]
    for nth in (renames - 1, renames):
        for action in ("kill", "killed"):
            try_fault(injector, nights[1], Fault("rename", action, nth), tmp_path / "store")


def test_everything_is_on_disk_before_what_tells_of_it(nights: tuple[Night, Night]) -> None:
    for night in nights:
        assert disorder(night.trace) == []
        renamed = [
            line.split("\t")[2]
            for line in night.trace.read_text().splitlines()
            if line.startswith(("rename", "link"))
        ]
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

    monkeypatch.setattr(store_files.os, "fsync", full)
    with pytest.raises(StoreWriteError, match=r"x: cannot be written: no space .*; make"):
        store_files.write_bytes(tmp_path, "x", b"data")
    assert list(tmp_path.iterdir()) == []
