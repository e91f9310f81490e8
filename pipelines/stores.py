"""The store that a command names, and how what a run made of it is published."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from lookalike.errors import RequestError
from lookalike.pipelines import checks
from lookalike.store import snapshot
from lookalike.store.files import Found
from lookalike.store.locks import StoreBusyError
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store, open_store


@dataclass
class StoreHandle:
    """A store that a command works on, and publishes in.

    Attributes:
        store: The store.
    """

    store: Store
    # while it is held: CURRENT as it was when it was taken
    _before: Found | None = field(default=None, init=False)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store, and clear away what a killed run left half written.

        Raises:
            StoreBusyError: Another run holds it.
        """
        with self.store.hold() as inherited:
            self._before = (
                snapshot.fenced(self.store) if inherited else self.store.read(snapshot.CURRENT)
            )
            with suppress(RequestError):  # who may not end uploads may write all the same
                self.store.delete([one.path for one in self.store.leftovers()])
            yield

    def check_parent(self, parent: Manifest | None) -> None:
        """While the store is held: is still published what was when the run looked?

        Raises:
            StoreBusyError: Another run has published since.
        """
        known, now = parent["name"] if parent else None, snapshot.current(self.store)
        if now != known:
            raise StoreBusyError(
                f"{self.store}: another run published {now} meanwhile, in place of "
                f"{known or 'nothing'}; run the same command again"
            )

    def publish(self, manifest: Manifest) -> None:
        """Publish a snapshot whose files are all there; while the store is held.

        Raises:
            StoreBusyError: Another run took the store over, or published meanwhile; CURRENT is as
                that run left it.
        """
        snapshot.write_manifest(self.store, manifest)
        self.store.confirm()
        snapshot.point(self.store, str(manifest["name"]), self._before)


def to_write(name: str, sources: Sequence[str]) -> StoreHandle:
    """The store that a run brings up to date.

    Raises:
        RequestError: It cannot be written to, or holds other things.
    """
    store = open_store(name)
    checks.check_store(store, sources)
    return StoreHandle(store)


def to_keep(given: argparse.Namespace) -> StoreHandle:
    """The store that a command changes the snapshots of.

    Raises:
        RequestError: There is none, or nothing was published in it.
    """
    store = open_store(given.store)
    if not store.is_there() or snapshot.current(store) is None:
        raise RequestError(f"{store}: no such store, or nothing is published in it")
    return StoreHandle(store)
