"""What trials need of the place where a store lies: all that differs between folder and bucket."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from faults.injector import Ended, Fault
from faults.scenarios import Scenario
from lookalike.store.objects import Store


class Backend(ABC):
    """A place for stores, in which the nth change that a command makes goes wrong.

    Attributes:
        name: Of the place.
        points: What may go wrong with each kind of operation.
        reaching: What of this reaches into the next run, which may have to be run once more.
    """

    name: ClassVar[str]
    points: ClassVar[Mapping[str, tuple[str, ...]]]
    reaching: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def fresh(self, before: Store | None) -> Store:
        """A store that is not there yet, or that holds what another does."""

    @abstractmethod
    def discard(self, store: Store) -> None:
        """Remove a store that `fresh` made."""

    @abstractmethod
    def run(
        self, scenario: Scenario, store: Store, fault: Fault, trace: Path | None = None
    ) -> Ended:
        """Run a scenario's command on a store, with a fault in it.

        Args:
            scenario: What to run.
            store: One that `fresh` made.
            fault: What happens.
            trace: A file that gets the operations, a line each.
        """

    @abstractmethod
    def check_ended(self, fault: Fault, ended: Ended) -> None:
        """Whether a command ended as it should with such a fault in it.

        Raises:
            AssertionError: It did not.
        """

    @abstractmethod
    def operations(self, trace: Path, store: Store) -> list[tuple[str, str]]:
        """Kind and path, in the store, of every operation of a traced run."""

    @abstractmethod
    def paths(self, store: Store) -> Iterable[str]:
        """All there is in a store, with what is half written."""

    @abstractmethod
    def close(self) -> None:
        """End all that was started."""

    def all_faults(self, operations: Counter[str]) -> list[Fault]:
        """Every fault for every n."""
        return [
            Fault(kind, action, nth)
            for kind, actions in self.points.items()
            for nth in range(1, operations[kind] + 1)
            for action in actions
        ]

    def some_faults(self, operations: Counter[str]) -> list[Fault]:
        """Of everything that may go wrong one, each at another place."""
        pairs = self.some_points(operations)
        return [
            Fault(kind, action, 1 + operations[kind] * (2 * number + 1) // (2 * len(pairs)))
            for number, (kind, action) in enumerate(pairs)
        ]

    def some_points(self, operations: Counter[str]) -> list[tuple[str, str]]:
        """Kinds and actions that differ."""
        return [(kind, action) for kind, actions in self.points.items() for action in actions]
