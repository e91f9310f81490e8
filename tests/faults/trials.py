"""A night with a fault in it, what is left of the store, and the next run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from faults.backend import Backend
from faults.checking import Contents, read_contents, unlisted
from faults.injector import Ended, Fault
from faults.scenarios import MAKERS, Scenario
from lookalike.store import snapshot
from lookalike.store.objects import Store
from lookalike.store.retention import gc

_NONE = Fault()


@dataclass
class Night:
    """A run to disturb: where it begins, and what it comes to undisturbed."""

    called: str
    backend: Backend
    scenario: Scenario
    before: Store | None
    old: Contents | None
    store: Store
    trace: Path
    new: Contents = field(init=False)

    def __post_init__(self) -> None:
        """Run it undisturbed."""
        done = self.backend.run(self.scenario, self.store, _NONE, self.trace)
        assert done.status == 0, done
        left = unlisted(self.store, self.backend.paths(self.store))
        assert left == [], left
        self.new = read_contents(self.store)

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.backend.name}, {self.scenario.name}, {self.called}"

    @property
    def operations(self) -> list[tuple[str, str]]:
        """Kind and path of everything that it changes."""
        return self.backend.operations(self.trace, self.store)

    @property
    def counts(self) -> Counter[str]:
        """How many operations of each kind."""
        return Counter(kind for kind, _ in self.operations)


@dataclass
class Nights:
    """Both nights of a scenario, for as long as the folder is there; the second after the first."""

    backend: Backend
    folder: Path
    kind: str
    scenario: Scenario = field(init=False)

    def __post_init__(self) -> None:
        self.scenario = MAKERS[self.kind](self.folder / self.kind)

    def first(self) -> Night:
        """A store that is not there yet."""
        return self._night("first night", None)

    def second(self, first: Night) -> Night:
        """Files were edited, renamed, added and removed since; first's sources are gone."""
        self.scenario.change()
        return self._night("second night", first)

    def _night(self, name: str, first: Night | None) -> Night:
        return Night(
            name,
            self.backend,
            self.scenario,
            first and first.store,
            first and first.new,
            self.backend.fresh(first and first.store),
            self.folder / self.kind / f"{name}.trace",
        )


def try_fault(night: Night, fault: Fault) -> Ended:
    """Run a night with a fault, check what is left, run again, and check that; returns the first.

    Raises:
        AssertionError: Something is not as it must be.
    """
    backend = night.backend
    store = backend.fresh(night.before)
    try:
        ended = backend.run(night.scenario, store, fault)
        backend.check_ended(fault, ended)
        published = _check_stands(night, store)
        again = backend.run(night.scenario, store, _NONE)
        if again.status == 1 and fault.action in backend.reaching:
            assert "; run the same command again" in again.said, f"the next run: {again}"
            again = backend.run(night.scenario, store, _NONE)
        assert again.status == 0, f"the next run: {again}"
        assert not (wrong := read_contents(store).differs(night.new)), f"the next run: {wrong}"
        if fault.action not in backend.reaching:
            # The scratch of a run that was killed when it had published is left to gc.
            left = unlisted(store, backend.paths(store))
            unexpected = [path for path in left if not (published and path.startswith("runs/"))]
            assert unexpected == [], f"left behind: {unexpected}"
        with store.hold():
            gc(store)
        left = unlisted(store, backend.paths(store))
        assert left == [], f"left behind by gc: {left}"
        assert not (wrong := read_contents(store).differs(night.new)), f"after gc: {wrong}"
        return ended
    finally:
        backend.discard(store)


def _check_stands(night: Night, store: Store) -> bool:
    """Whether the night's snapshot is published; if not, the one before must be, and be whole."""
    name, before = snapshot.current(store), night.before and snapshot.current(night.before)
    if name == before:
        if night.old is not None:
            assert not (wrong := read_contents(store).differs(night.old)), f"the old one: {wrong}"
        return False
    assert name is not None, "CURRENT is gone"
    assert not (wrong := read_contents(store).differs(night.new)), f"published: {wrong}"
    return True
