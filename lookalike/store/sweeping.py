"""Removing every file of a store that nothing needs.

The manifest of a snapshot is removed before its files, so that a manifest that can be read never
names a missing file. Links are never followed: the link itself is removed, and what it points to
stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from lookalike.batching import up_to
from lookalike.errors import RequestError
from lookalike.store import snapshot
from lookalike.store.files import Entry
from lookalike.store.locks import CLOCK, LOCK
from lookalike.store.objects import Store

_OF_RUNS = ("embeddings", "index")  # files there bear the name of the run that wrote them
_SHARED = ("models", "templates")  # those there are named by what is in them
_FOLDERS = (*_OF_RUNS, *_SHARED, "snapshots", "runs")
_AT_ONCE = 1000  # files removed between two looks at whether the store is held
PLAN = "plan.json"  # the note of a run that publishes


@dataclass
class Swept:
    """What was removed, or with `dry_run` would be.

    Attributes:
        dry_run: Whether nothing was done.
        snapshots: Names of those removed.
        files: Files removed, all kinds.
        bytes: Their sizes together.
        paths: Those files, relative to the store.
    """

    dry_run: bool = False
    snapshots: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    paths: list[str] = field(default_factory=list)


def sweep(
    store: Store,
    snapshots: Collection[str],
    needed: Iterable[str],
    runs: Collection[str],
    *,
    dry_run: bool = False,
) -> Swept:
    """Remove all that is in the store's folders but for what is named.

    Args:
        store: The store's root; the caller holds it.
        snapshots: Names of those that stay.
        needed: Paths of the files that they list.
        runs: Unfinished runs whose scratch and files stay.
        dry_run: Whether to say only what would go.
    """
    swept = Swept(dry_run)
    kept = {str(PurePosixPath(path)) for path in needed}
    kept |= {snapshot.manifest_path(name) for name in snapshots}
    manifests = [
        entry
        for entry in store.entries("snapshots")
        if entry.path not in kept and entry.path == snapshot.manifest_path(_parts(entry.path)[1])
    ]
    swept.snapshots = sorted(_parts(entry.path)[1] for entry in manifests)
    _remove(store, manifests, swept)
    kept.update(entry.path for entry in manifests)
    _remove(store, list(_unneeded(store, kept, runs)), swept)
    if not dry_run:
        store.tidy([f"runs/{run}" for run in runs])
    return swept


def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(path).parts


def sweep_run(store: Store, run: str, needed: Collection[str]) -> None:
    """Remove a run's files that nothing names.

    Where a manifest cannot be read, so that it is not known which it lists, they stay, for `gc`.

    Args:
        store: The store's root; the caller holds it.
        run: Its name.
        needed: Paths of files that stay, beside those that finished snapshots list.
    """
    found = [
        path
        for folder in _OF_RUNS
        for path in store.files(folder)
        if f"{run}-" in PurePosixPath(path).name and path not in needed
    ]
    if not found:
        return
    try:
        listed = {
            str(line["path"])
            for name in snapshot.names(store)
            for line in snapshot.read_manifest(store, name)["files"]
        }
    except RequestError:
        return
    store.delete(path for path in found if path not in listed)


def unfinished(store: Store) -> list[str]:
    """Names of the runs that can be continued: a note lies beside the folder they began in."""
    return [name for name in store.folders("runs") if notes_of(store, name)]


def notes_of(store: Store, run: str) -> list[str]:
    """Paths of what a run to be continued says of itself: its plan, or what `forget` found."""
    return [path for path in store.files(f"runs/{run}", ".json") if len(_parts(path)) == 3]


def _unneeded(store: Store, kept: Collection[str], runs: Collection[str]) -> Iterator[Entry]:
    notes = {run: [store.read_json(path) for path in notes_of(store, run)][:1] for run in runs}
    begun = {run: note.get("begun") for run, found in notes.items() for note in found}
    pending = {note.get("snapshot") for found in notes.values() for note in found}
    for folder in _FOLDERS:
        for entry in store.entries(folder):
            needed = entry.path in kept or entry.path in (LOCK, CLOCK)
            if not needed and not _of_a_run(_parts(entry.path), begun, pending):
                yield entry
    for entry in store.leftovers():  # no one writes now: what is half written is a dead run's
        if len(_parts(entry.path)) == 1 or _parts(entry.path)[0] in _FOLDERS:
            yield entry


def _of_a_run(
    parts: tuple[str, ...], runs: Mapping[str, str | None], pending: Collection[str | None]
) -> bool:
    """Whether a file is, or may be, one that an unfinished run has made."""
    if parts[0] in _OF_RUNS:
        return any(run in parts[-1] for run in runs)
    if parts[0] in _SHARED:  # whose they are is not in their names
        return bool(runs)
    if parts[0] == "runs":
        return parts[1] in runs and (len(parts) == 3 or parts[2] == runs[parts[1]])
    return parts[1] in pending


def _remove(store: Store, entries: Sequence[Entry], swept: Swept) -> None:
    for some in up_to(((entry, 1) for entry in entries), _AT_ONCE):
        if not swept.dry_run:
            store.confirm()  # another's files may be needed by now
            store.delete(entry.path for entry in some)
        swept.files += len(some)
        swept.bytes += sum(entry.bytes for entry in some)
        swept.paths += [entry.path for entry in some]
