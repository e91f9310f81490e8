"""`lookalike rollback` and `lookalike gc`: which snapshot is published, and which are kept."""

from __future__ import annotations

import argparse

from lookalike.pipelines.stores import to_keep
from lookalike.pipelines.streams import print_as_json
from lookalike.sizes import size_text
from lookalike.store import retention, snapshot


def rollback(given: argparse.Namespace) -> int:
    """Publish an earlier snapshot again."""
    place = to_keep(given)
    store = place.store
    with place.writing():
        before = snapshot.current(store)
        manifest = retention.rollback(store, given.snapshot, check=given.check)
    if given.json:
        found = {"snapshot": manifest["name"], "before": before, "counts": manifest["counts"]}
        print_as_json(found)
    else:
        print(
            f"published {manifest['name']} (created {manifest['created']}) in place of {before}, "
            f"which stays until gc; the next run starts from {manifest['name']}"
        )
    return 0


def gc(given: argparse.Namespace) -> int:
    """Remove snapshots by the retention rule, and the files that none of those left needs."""
    place = to_keep(given)
    store = place.store
    with place.writing():
        found = retention.gc(
            store, given.keep_last, given.keep_days, given.grace, dry_run=given.dry_run
        )
    if given.json:
        print_as_json({"store": str(store), **found.to_json()})
        return 0
    kept = ", ".join(f"{one.name} ({one.why})" for one in found.kept)
    verb = "would remove" if given.dry_run else "removed"
    swept = found.swept
    print(f"kept {len(found.kept)} snapshots: {kept}")
    if found.runs:
        print(f"kept {len(found.runs)} unfinished runs: {', '.join(found.runs)}")
    print(
        f"{verb} {len(swept.snapshots)} snapshots, {swept.files:,} files, "
        f"{size_text(swept.bytes)}{': ' if swept.snapshots else ''}{', '.join(swept.snapshots)}"
    )
    return 0
