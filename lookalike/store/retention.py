"""Going back to an earlier snapshot, and the rule by which snapshots are kept or removed."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lookalike.errors import RequestError
from lookalike.store import snapshot
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store
from lookalike.store.sweeping import PLAN, Swept, sweep, unfinished

KEEP_LAST = 3
KEEP_DAYS = 7.0
GRACE_S = 3600.0
_DAY_S = 86_400.0


# --- going back -------------------------------------------------------------------------------


def rollback(store: Store, name: str | None = None, *, check: bool = False) -> Manifest:
    """Publish an earlier snapshot again, by default the one before the published one.

    Args:
        store: The store's root; the caller holds it.
        name: Of the snapshot; any finished one, newer ones included.
        check: Whether to compare every file's sha256 too, not presence and size alone.

    Returns:
        The manifest that is published now.

    Raises:
        RequestError: There is no such snapshot, or it is not whole; nothing has changed.
    """
    before, published = store.read(snapshot.CURRENT), snapshot.current(store)
    wanted = name or _before(store, published)
    manifest = snapshot.read_manifest(store, wanted)
    if wanted == published:
        raise RequestError(f"{store}: {wanted} is the published snapshot already")
    problems = list(snapshot.check_manifest(manifest))
    if check:
        problems += [one for line in manifest["files"] for one in snapshot.check_file(store, line)]
    else:
        problems += snapshot.check_sizes(store, manifest["files"])
    if problems:
        raise RequestError(
            f"{store}: cannot go back to {wanted}, {len(problems)} of its files are not as they "
            f"were: {problems[0]}; finished snapshots: {', '.join(snapshot.names(store))}"
        )
    if published is not None:
        left = snapshot.manifest_path(published)
        if (manifest_left := store.read(left)) is not None:
            store.put(left, manifest_left.data)  # current until now, as its time says: for readers
    snapshot.point(store, wanted, before)
    return manifest


def _before(store: Store, published: str | None) -> str:
    """The parent of the published snapshot; where it cannot be read, the last one before it."""
    known = snapshot.names(store)
    try:
        parent = snapshot.read_manifest(store).get("parent")
    except RequestError:
        earlier = [one for one in known if published is None or one < published]
        if not earlier:
            raise
        return earlier[-1]
    if not parent:
        raise RequestError(
            f"{store}: {published} is its first snapshot, there is none to go back to; finished "
            f"snapshots: {', '.join(known)}"
        )
    if parent not in known:
        raise RequestError(
            f"{store}: {parent}, the one before {published}, was removed (gc, forget); name one "
            f"with --snapshot; finished snapshots: {', '.join(known)}"
        )
    return str(parent)


def next_file_no(store: Store, known: Mapping[str, Any] | None = None) -> int:
    """The first file number that no finished snapshot has used, those rolled back included.

    The newest snapshot says it, as each goes on from those before it.
    """
    names = snapshot.names(store)
    if not names:
        return 0
    newest = known if known and known["name"] == names[-1] else None
    return int((newest or snapshot.read_manifest(store, names[-1])).get("next_file_no", 0))


# --- what to keep -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A snapshot that stays, and why: "published", "last", "days" or "grace"."""

    name: str
    why: str


@dataclass(frozen=True)
class Collected:
    """What `gc` kept and removed; the scratch of `runs`, unfinished ones, stays."""

    kept: list[Kept]
    runs: list[str]
    swept: Swept

    def to_json(self) -> Mapping[str, object]:
        """As `lookalike gc --json` prints it."""
        return {
            "kept": [one.__dict__ for one in self.kept],
            "runs": self.runs,
            **self.swept.__dict__,
        }


@dataclass(frozen=True)
class _Snapshot:
    name: str
    created: float  # seconds since the epoch, as are all times here
    written: float  # of its manifest; touched by a rollback away from it
    parent: str | None
    lines: tuple[str, ...]  # paths of its files


def gc(
    store: Store,
    keep_last: int = KEEP_LAST,
    keep_days: float = KEEP_DAYS,
    grace_s: float = GRACE_S,
    *,
    dry_run: bool = False,
    now: float | None = None,
) -> Collected:
    """Remove snapshots by the retention rule, and every file that no snapshot left needs.

    The published snapshot stays, the last `keep_last`, those created in the last `keep_days`, and
    any that was the published one until less than `grace_s` ago, as a reader may have it open.
    Unfinished runs touched in the last `keep_days` stay with all that they have made.

    Args:
        store: The store's root; the caller holds it.
        keep_last: At least 1.
        keep_days: At least 0.
        grace_s: At least 0.
        dry_run: Whether to say only what would go.
        now: Seconds since the epoch, by default the clock's.

    Raises:
        StoreBusyError: Another run has taken the store over; no more is removed.
        RequestError: A number is wrong, or a manifest cannot be read, so that it is not known which
            files it needs; nothing was removed.
    """
    for option, value, least in (
        ("--keep-last", keep_last, 1),
        ("--keep-days", keep_days, 0),
        ("--grace", grace_s, 0),
    ):
        if not value >= least:
            raise RequestError(f"{option} must be at least {least}, got {value}")
    now = time.time() if now is None else now
    published = str(snapshot.read_manifest(store)["name"])
    there = _snapshots(store)
    kept = _kept(store, there, published, keep_last, now - keep_days * _DAY_S, now - grace_s)
    staying = {one.name for one in kept}
    succeeded = {published, *(one.parent for one in there)}
    runs = _unfinished(store, now - keep_days * _DAY_S, succeeded)
    needed = [path for one in there if one.name in staying for path in one.lines]
    return Collected(kept, runs, sweep(store, staying, needed, runs, dry_run=dry_run))


def remove_all_but(store: Store, name: str, run: str) -> Swept:
    """Remove every other snapshot at once, and all that one does not need; nobody is waited for.

    Args:
        store: The store's root; the caller holds it.
        name: Of the snapshot that stays.
        run: Whose scratch stays for now, though it is told of with what was removed.
    """
    needed = [str(line["path"]) for line in snapshot.read_manifest(store, name)["files"]]
    scratch = list(store.entries(f"runs/{run}"))
    swept = sweep(store, [name], [*needed, *(one.path for one in scratch)], [])
    swept.files += len(scratch)
    swept.bytes += sum(entry.bytes for entry in scratch)
    return swept


def _snapshots(store: Store) -> list[_Snapshot]:
    """All finished snapshots, oldest first."""
    found = []
    for name in snapshot.names(store):
        manifest = snapshot.read_manifest(store, name)
        problem = next(snapshot.check_manifest(manifest), None)
        if problem is not None:
            raise RequestError(
                f"{store}: {problem}: which files it needs is not certain, nothing was removed; "
                f"remove {store.shown(f'snapshots/{name}')} yourself if it is of no use"
            )
        written = _written(store, snapshot.manifest_path(name))
        lines = tuple(str(line["path"]) for line in manifest["files"])
        parent = manifest.get("parent")
        found.append(_Snapshot(name, _created(manifest, written), written, parent, lines))
    return sorted(found, key=lambda one: (one.created, one.name))


def _written(store: Store, path: str) -> float:
    found = store.stat(path)
    if found is None:
        raise RequestError(f"{store.shown(path)}: was removed meanwhile; run again")
    return found.modified.timestamp()


def _created(manifest: Manifest, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(str(manifest.get("created"))).timestamp()
    except ValueError:
        return otherwise


def _kept(
    store: Store, there: list[_Snapshot], published: str, last: int, since: float, grace: float
) -> list[Kept]:
    """The snapshots that stay, oldest first.

    Args:
        store: The store's root.
        there: All, oldest first.
        published: The current one's name.
        last: How many of the newest stay.
        since: Those created then or later stay.
        grace: Those that were current then or later stay.
    """
    kept = []
    newest = {one.name for one in there[-last:]}
    for one, ended in zip(there, _superseded(store, there, published), strict=True):
        if one.name == published:
            kept.append(Kept(one.name, "published"))
        elif one.name in newest:
            kept.append(Kept(one.name, "last"))
        elif one.created >= since:
            kept.append(Kept(one.name, "days"))
        elif ended >= grace:
            kept.append(Kept(one.name, "grace"))
    return kept


def _superseded(store: Store, there: list[_Snapshot], published: str) -> list[float]:
    """When each snapshot ceased to be the published one: then or a little later, never earlier."""
    switched = _written(store, snapshot.CURRENT)
    place = next((at for at, one in enumerate(there) if one.name == published), len(there))
    ended = []
    for at, one in enumerate(there):
        if at >= place:  # a rollback left it behind, or it is current
            ended.append(switched)
            continue
        successors = [there[at + 1], *(other for other in there if other.parent == one.name)]
        times = [max(other.created, other.written) for other in successors]
        # A touched manifest of a successor may be younger than the switch that ended this one.
        ended.append(max(one.written, min(max(times), switched)))
    return ended


def _unfinished(store: Store, since: float, succeeded: Collection[str | None]) -> list[str]:
    """Runs whose scratch was written to then or later, and that have something left to publish.

    One that was killed when it had published has nothing but scratch to remove.
    """

    def is_over(name: str) -> bool:
        plan = store.read(f"runs/{name}/{PLAN}")
        return plan is not None and json.loads(plan.data).get("snapshot") in succeeded

    return [
        name
        for name in unfinished(store)
        if any(one.modified.timestamp() >= since for one in store.entries(f"runs/{name}"))
        and not is_over(name)
    ]
