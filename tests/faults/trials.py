"""A night with a fault in it, what is left of the store, and the next run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from faults.checking import Contents, read_contents, unlisted
from faults.injector import ERRORS, Ended, Fault, Injector, all_faults, count_operations
from faults.scenarios import MAKERS, Scenario
from lookalike.store import snapshot
from lookalike.store.objects import open_store


@dataclass
class Night:
    """A run to disturb: where it begins, and what it comes to undisturbed."""

    name: str
    scenario: Scenario
    before: Path | None  # the store
    old: Contents | None
    new: Contents
    trace: Path
    store: Path

    def faults(self) -> list[Fault]:
        """All there are."""
        return all_faults(count_operations(self.trace, self.store))


@dataclass
class Nights:
    """Both nights of a scenario, for as long as the folder is there; the second after the first."""

    injector: Injector
    folder: Path
    kind: str
    scenario: Scenario = field(init=False)

    def __post_init__(self) -> None:
        self.scenario = MAKERS[self.kind](self.folder / self.kind)

    def first(self) -> Night:
        """A store that is not there yet."""
        return self._night("first night", None, None)

    def second(self, first: Night) -> Night:
        """Files were edited, renamed, added and removed since; first's sources are gone."""
        self.scenario.change()
        return self._night("second night", self._stores / "first night" / "store", first.new)

    @property
    def _stores(self) -> Path:
        return self.folder / self.kind / "undisturbed"

    def _night(self, name: str, before: Path | None, old: Contents | None) -> Night:
        store, trace = self._stores / name / "store", self.folder / self.kind / f"{name}.trace"
        store.parent.mkdir(parents=True)
        if before:
            shutil.copytree(before, store)
        # What happens to the folder around it matters too: the store itself is made there.
        done = self.injector.run(self.scenario.arguments(store), store.parent, trace=trace)
        assert done.status == 0, done
        assert unlisted(store) == [], unlisted(store)
        return Night(
            f"{self.kind}, {name}",
            self.scenario,
            before,
            old,
            read_contents(store),
            trace,
            store,
        )


def try_fault(injector: Injector, night: Night, fault: Fault, store: Path) -> Ended:
    """Run a night with a fault, check what is left, run again, and check that; returns the first.

    Raises:
        AssertionError: Something is not as it must be.
    """
    shutil.rmtree(store, ignore_errors=True)
    if night.before:
        shutil.copytree(night.before, store)
    arguments = night.scenario.arguments(store)
    ended = injector.run(arguments, store, fault)
    _check_ended(fault, ended)
    name = snapshot.current(open_store(store))
    if night.before and name == snapshot.current(open_store(night.before)):
        assert night.old is not None
        assert not (wrong := read_contents(store).differs(night.old)), f"the old one: {wrong}"
    elif name is None:
        assert night.before is None, "CURRENT is gone"
    else:
        assert not (wrong := read_contents(store).differs(night.new)), f"published: {wrong}"
    # The scratch of a run that was published, and killed while it was removed, is left to gc.
    published = name is not None and (
        not night.before or name != snapshot.current(open_store(night.before))
    )
    again = injector.run(arguments, store)
    assert again.status == 0, f"the next run: {again}"
    assert not (wrong := read_contents(store).differs(night.new)), f"the next run: {wrong}"
    left = [path for path in unlisted(store) if not (published and path.startswith("runs/"))]
    assert left == [], f"left behind: {left}"
    return ended


def _check_ended(fault: Fault, ended: Ended) -> None:
    """Killed, or ended with status 1 and one line that says why."""
    if fault.action not in ERRORS:
        assert ended.status == -9, f"not killed: {ended}"
        return
    assert ended.status == 1, f"status: {ended}"
    last = ended.said.splitlines()[-1]
    assert last.startswith("lookalike: "), f"said: {ended.said}"
    assert ERRORS[fault.action] in last.lower(), f"said: {last}"
    assert "Traceback" not in ended.said, ended.said
