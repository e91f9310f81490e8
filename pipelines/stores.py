"""The store that a command names: a folder, or object storage worked on in a local mirror of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookalike.store import snapshot
from lookalike.store.locks import StoreBusyError, hold
from lookalike.store.storage import is_remote
from pipelines import checks

if TYPE_CHECKING:
    from lookalike.store.pushing import WritableMirror


@dataclass(frozen=True)
class Place:
    """Where a command works on a store, and how what it made is published.

    Attributes:
        folder: A local store: the store itself, or its mirror.
        mirror: Of a store on object storage; None for a local one.
    """

    folder: Path
    mirror: WritableMirror | None = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store, and clear away what a killed run left half written.

        Raises:
            StoreBusyError: Another run holds it.
        """
        with self.mirror.holding() if self.mirror else hold(self.folder):
            for leftover in self.folder.rglob(".*.tmp"):  # a killed run's; nobody else writes now
                leftover.unlink(missing_ok=True)
            yield

    def check_parent(self, parent: Mapping[str, Any] | None) -> None:
        """While the store is held: is still published what was when the run looked?

        Raises:
            StoreBusyError: Another run has published since.
        """
        known, now = parent["name"] if parent else None, snapshot.current(self.folder)
        if now != known:
            raise StoreBusyError(
                f"{self.folder}: another run published {now} meanwhile, in place of "
                f"{known or 'nothing'}; run the same command again"
            )

    def fetch(self, name: str | None) -> None:
        """Have all files of a snapshot in the folder, if there is such a one; None: its parent's.

        For going back to it: what is not on object storage is not there to go back to.
        """
        if self.mirror:
            published = snapshot.read_manifest(self.folder)
            wanted = name or published.get("parent")
            if wanted in snapshot.names(self.folder):
                self.mirror.fetch(snapshot.read_manifest(self.folder, wanted))

    def follow(self) -> None:
        """Publish the snapshot that the folder publishes, where the store is not the folder."""
        if self.mirror:
            self.mirror.follow()

    def sweep(self) -> None:
        """Remove what no snapshot in the folder lists, where the store is not the folder."""
        if self.mirror:
            self.mirror.sweep()

    def publish(self, manifest: Mapping[str, Any]) -> None:
        """Publish a snapshot whose files are all in the folder; while the store is held."""
        if self.mirror:
            self.mirror.publish(manifest)
        else:
            snapshot.publish(self.folder, manifest)


def to_write(
    name: str, sources: Sequence[str], cache: str | None, say: Callable[[str], None]
) -> Place:
    """The store that a run brings up to date, with all of the published snapshot there.

    Raises:
        RequestError: It cannot be written to, or holds other things.
    """
    if not is_remote(name):
        return Place(checks.check_store(name, sources))
    from lookalike.store.pushing import WritableMirror

    mirror = WritableMirror(name, cache, say)
    checks.check_store(str(mirror.folder), sources)
    if mirror.look():
        mirror.fetch(snapshot.read_manifest(mirror.folder))
    return Place(mirror.folder, mirror)


def to_keep(given: argparse.Namespace, check: Callable[[str], Path]) -> Place:
    """The store that a command changes the snapshots of; all manifests are there, files are not.

    Raises:
        RequestError: There is none, or nothing was published in it.
    """
    if not is_remote(given.store):
        return Place(check(given.store))
    from lookalike.store.pushing import WritableMirror

    mirror = WritableMirror(given.store, given.cache)
    mirror.look()
    return Place(check(str(mirror.folder)), mirror)


def to_read(given: argparse.Namespace, *unread: str, only: Collection[str] | None = None) -> None:
    """Turn the store that a command names into a folder to read, where it is none.

    Args:
        given: The command's flags; `store` and `snapshot` are changed, `named` is the store as it
            was named.
        unread: Kinds of files that the command does not need.
        only: The kinds of files that it does need, beside manifests.

    Raises:
        RequestError: There is no such store, or no such snapshot.
    """
    given.named = given.store
    if is_remote(given.store):
        from lookalike.store.mirror import READ_KINDS, local_copy

        kinds = [kind for kind in (READ_KINDS if only is None else only) if kind not in unread]
        given.store, given.snapshot = local_copy(
            given.store, getattr(given, "snapshot", None), kinds=kinds, cache=given.cache
        )


def verified(given: argparse.Namespace) -> tuple[dict[str, Any], list[snapshot.Problem]]:
    """A snapshot's manifest, and what of its files is not as it says; objects are read in place.

    Raises:
        RequestError: There is no such store, or no such snapshot.
    """
    if not is_remote(given.store):
        store = Path(given.store)
        manifest = snapshot.read_manifest(store, given.snapshot)
        return manifest, list(snapshot.verify(store, given.snapshot))
    from lookalike.store.mirror import Mirror

    mirror = Mirror(given.store, given.cache)
    manifest = mirror.pull((), given.snapshot)
    return manifest, list(mirror.verify(manifest["name"]))


def folder_of(name: str, cache: str | None) -> Path:
    """The folder that a store is, or is mirrored in; nothing is fetched."""
    if not is_remote(name):
        return Path(name)
    from lookalike.store.mirror import mirror_folder

    return mirror_folder(name, cache)
