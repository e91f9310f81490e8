"""`lookalike forget`: images go for good, and a search of every file under the store proves it.

    find all that is held -> compact their shards -> index anew -> ledger without them -> publish
    -> remove all other snapshots and files -> search what is left

What was found is noted in the scratch of the run, which is the last thing removed: the same command
continues a run that was stopped, even after the names are in no snapshot any more.
"""

from __future__ import annotations

import argparse
import base64
import json
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.errors import RequestError
from lookalike.pipelines import preflight
from lookalike.pipelines.config import Config, PublishConfig, load_config
from lookalike.pipelines.erase import Erasure
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.prove import Proving
from lookalike.pipelines.stores import to_keep
from lookalike.pipelines.streams import print_as_json
from lookalike.pipelines.tasks import TaskRunner
from lookalike.sizes import size_text
from lookalike.store import forgetting, proof, retention, snapshot
from lookalike.store.forgetting import Held
from lookalike.store.objects import Store
from lookalike.store.runs import Run

_SHOWN = 20  # names, in a text for people
_NOTE = "forget.json"


def run_forget(given: argparse.Namespace) -> int:
    """Forget images; status 1 if anything of them is found afterwards.

    Raises:
        RequestError: No such images, or no others; nothing has changed.
    """
    place = to_keep(given)
    store = place.store
    names = [*(given.uri or []), *(forgetting.read_list(Path(given.list)) if given.list else [])]
    progress = Progress()
    with place.writing():
        run = Run.for_request(store, {"forget": sorted(set(names)), "where": given.where})
        noted = _Note.load(run)
        held = noted.held if noted else forgetting.find(store, names, given.where)
        if not held:
            asked = f"{len(set(names)):,} names" if names else "the rows of --where"
            raise RequestError(
                f"{store}: none of {asked} is in it; names are as in the ledger, absolute"
            )
        if given.dry_run:
            return _say_what_would_go(given, held)
        if noted is None:
            noted = _Note(held, _new_name(run), retention.next_file_no(store))
            config = _config(given.config, store)
            Erasure(store, run, config, progress, noted.snapshot, noted.file_no, held).check()
            run.start()
            noted.save(run)
        if snapshot.current(store) != noted.snapshot:
            config = _config(given.config, store)
            erasure = Erasure(store, run, config, progress, noted.snapshot, noted.file_no, held)
            place.publish(erasure.build())
            progress.say(f"published {noted.snapshot}")
        swept = retention.remove_all_but(store, noted.snapshot, run.name)
        progress.say(
            f"removed {len(swept.snapshots)} snapshots, {swept.files:,} files, "
            f"{size_text(swept.bytes)}"
        )
        manifest = snapshot.read_manifest(store)
        runner = _config(given.config, store).runner
        found = Proving(TaskRunner(run, runner, progress), held, manifest).prove()
    if given.json:
        print_as_json(
            {
                **_described(held),
                "snapshot": noted.snapshot,
                "certificate": manifest.get("certificate"),
                "removed": {
                    "snapshots": swept.snapshots,
                    "files": swept.files,
                    "bytes": swept.bytes,
                },
                "proof": found.to_json(),
            }
        )
    else:
        _report(held, noted.snapshot, found)
    return 1 if found.finds else 0


@dataclass
class _Note:
    """What a run of this command found, before it changed anything."""

    held: Held
    snapshot: str
    file_no: int

    @classmethod
    def load(cls, run: Run) -> _Note | None:
        data = run.noted(_NOTE)
        if data is None:
            return None
        held = Held(
            data["names"],
            [bytes.fromhex(one) for one in data["contents"]],
            [np.frombuffer(base64.b64decode(one), "<f4") for one in data["vectors"]],
            np.array(data["ids"], dtype=np.int64),
            data["unknown"],
            data["unread"],
        )
        return cls(held, data["snapshot"], data["file_no"])

    def save(self, run: Run) -> None:
        held = self.held
        run.note(
            {
                "names": held.names,
                "contents": [one.hex() for one in held.contents],
                "vectors": [
                    base64.b64encode(one.astype("<f4").tobytes()).decode() for one in held.vectors
                ],
                "ids": held.ids.tolist(),
                "unknown": held.unknown,
                "unread": held.unread,
                "snapshot": self.snapshot,
                "file_no": self.file_no,
            },
            _NOTE,
        )


def _new_name(run: Run) -> str:
    return snapshot.new_name(datetime.now(timezone.utc), run.name[:6], snapshot.current(run.store))


def _config(path: str | None, store: Store) -> Config:
    """As given, or what the published snapshot was made with; without a floor for recall.

    Not to publish would be to keep what must go.
    """
    manifest = snapshot.read_manifest(store)
    if path:
        config = load_config(path, vectors=not manifest["features"])
        runner = preflight.ready(config.runner)
        preflight.check_folders(runner, [store])
        return replace(config, runner=runner)
    index = (manifest.get("request") or {}).get("index") or {}
    return Config((), metric=manifest["metric"], index=index, publish=PublishConfig(min_recall=0.0))


# --- what is said -----------------------------------------------------------------------------


def _described(held: Held) -> dict[str, Any]:
    return {
        "images": len(held.contents),
        "names": held.names,
        "vectors": len(held.vectors),
        "rows": len(held.ids),
        "unknown": held.unknown,
        "unread": held.unread,
    }


def _say_what_would_go(given: argparse.Namespace, held: Held) -> int:
    if given.json:
        print_as_json({**_described(held), "dry_run": True})
        return 0
    print(f"would forget {_summary(held)}:")
    _list("", held.names)
    _list("not in the store: ", held.unknown)
    return 0


def _report(held: Held, name: str, found: proof.Proof) -> None:
    print(f"forgot {_summary(held)}; published {name}, no other snapshot is left")
    _list("not in the store: ", held.unknown)
    _list("content not known, so a next run lists it again if it is still there: ", held.unread)
    print(
        f"searched {found.files:,} files ({size_text(found.bytes)}) for {found.names:,} names, "
        f"{found.contents:,} hashes of contents and {found.vectors:,} vectors"
    )
    if found.shared:
        print(f"{found.shared:,} of the vectors are those of other images, too, to the last bit")
    for find in found.finds[:_SHOWN]:
        print(f"FOUND {find.kind} {find.what} in {find.path}")
    if len(found.finds) > _SHOWN:
        print(f"FOUND {len(found.finds) - _SHOWN:,} more")
    if not found.finds:
        print("nothing found")


def _summary(held: Held) -> str:
    return f"{len(held.contents):,} images ({len(held.names):,} names, {len(held.ids):,} rows)"


def _list(what: str, names: list[str]) -> None:
    for name in names[:_SHOWN]:
        print(f"  {what}{json.dumps(name, ensure_ascii=False)}")
    if len(names) > _SHOWN:
        print(f"  {what}{len(names) - _SHOWN:,} more")
