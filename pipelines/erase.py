"""The next snapshot without some images: their shards compacted, index and ledger written anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike import __version__
from lookalike.distances import Ids
from lookalike.errors import RequestError
from lookalike.faults import Faults
from lookalike.ivf.trained_index import load_trained_index
from lookalike.pipelines.build import IndexBuild
from lookalike.pipelines.config import Config
from lookalike.pipelines.measuring import Measuring
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.report_data import write_report
from lookalike.pipelines.tasks import TaskRunner
from lookalike.reconcile.assembling import Ledger, Remaining, counts_of, write_ledger_files
from lookalike.store import duplicates, forgotten, snapshot
from lookalike.store.compacting import Compacting, plan_compaction
from lookalike.store.forgetting import Held
from lookalike.store.ledger import Counts
from lookalike.store.manifest import FileLine, Manifest
from lookalike.store.moving import Moving
from lookalike.store.objects import Store
from lookalike.store.runs import Run
from lookalike.store.sparing import Sparing
from lookalike.store.tombstones import read_tombstones, write_tombstones

_ALIKE = 1e-3  # of a vector's length: what gives it back this well has learnt it by heart
_INDEX = ("index", "template", "truth")
_OWN = ("embedding", "ledger", "duplicates", "tombstones", "report", "forgotten", *_INDEX)
_REDACTED = "(forgotten)"


@dataclass
class Erasure:
    """One run of `forget`, up to the next snapshot.

    Attributes:
        store: The store's root, held.
        scratch: Of this run.
        config: For the index.
        progress: Where to say what happens.
        name: Of the snapshot to publish.
        file_no: The first file number that is free.
        held: What must go.
    """

    store: Store
    scratch: Run
    config: Config
    progress: Progress
    name: str
    file_no: int
    held: Held

    def check(self) -> None:
        """Whether there will be a store left.

        Raises:
            RequestError: No vector would be left.
        """
        if not self._vectors:
            raise RequestError(
                f"{self.store}: nothing would be left in it; remove its folder to forget all of it"
            )

    def build(self) -> Manifest:
        """Compact, index, write ledger and report; the manifest, ready to be published."""
        parent, folder = self._parent, f"snapshots/{self.name}"
        self.check()
        embeddings, moving = self._compact()
        moved = moving(self.store) if moving else None
        tombstones = moved.tombstones if moved else self._deleted
        files = [line for line in parent["files"] if line["kind"] not in _OWN]
        files += embeddings
        ledger = self._ledger(folder, embeddings, moving)
        files += write_ledger_files(self.store, ledger, self._task_runner.meet, self._vectors)
        if len(tombstones):
            record = write_tombstones(self.store, f"{folder}/tombstones.npy", tombstones)
            files.append(record.line("tombstones"))
        record = forgotten.write_forgotten(
            self.store, f"{folder}/forgotten.npy", self.held.contents, self._forgotten_before()
        )
        files.append(record.line(forgotten.KIND))
        manifest = self._manifest(files, counts_of(self.store, ledger))
        if moved:
            learnt = _knows(self._trained(), self.held.vectors)
            if learnt:
                self.progress.say("train: anew, the trained index knows what is to be forgotten")
            IndexBuild(
                self._task_runner,
                self.config,
                manifest,
                None if learnt else parent,
                deleted=tombstones,
                moved=moved,
            ).run()
        else:
            manifest["files"] += [line for line in parent["files"] if line["kind"] in _INDEX]
            manifest["index"], manifest["search"] = parent["index"], parent["search"]
            manifest["certificate"] = parent["certificate"]
        manifest["files"] += write_report(
            self.store,
            folder,
            manifest,
            parent,
            {},
            Faults(self.progress.say),
            Measuring(self._task_runner),
        )
        return manifest

    @property
    def _task_runner(self) -> TaskRunner:
        return TaskRunner(self.scratch, self.config.runner, self.progress)

    @cached_property
    def _parent(self) -> Manifest:
        return snapshot.read_manifest(self.store)

    @cached_property
    def _deleted(self) -> Ids:
        """The tombstones of the published snapshot."""
        lines = snapshot.files_of(self._parent, "tombstones")
        return read_tombstones(self.store.local(line["path"]) for line in lines)

    @cached_property
    def _vectors(self) -> int:
        """Living rows that stay."""
        rows = sum(line["rows"] for line in snapshot.files_of(self._parent, "embedding"))
        return int(rows - len(np.union1d(self._deleted, self.held.ids)))

    def _trained(self) -> Any:
        name = self._parent["index"]["template"]
        return load_trained_index(self.store.local_folder(f"templates/{name}"), name)

    def _forgotten_before(self) -> forgotten.Forgotten:
        lines = snapshot.files_of(self._parent, forgotten.KIND)
        return forgotten.Forgotten.load(self.store.local(line["path"]) for line in lines)

    # --- embeddings ---------------------------------------------------------------------------

    def _compact(self) -> tuple[list[FileLine], Moving | None]:
        """The lines of all embedding shards, those that held something of the images anew."""
        lines = snapshot.files_of(self._parent, "embedding")
        if not len(self.held.ids):
            return lines, None
        deleted = np.union1d(self._deleted, self.held.ids)
        only = set(np.unique(self.held.ids >> 32).tolist())
        tasks = plan_compaction(
            lines, deleted, self.file_no, self.scratch.name, self.scratch.folder, only=only
        )
        path = f"{self.scratch.folder}/dead.npy"
        write_tombstones(self.store, path, deleted)
        made = self._task_runner.run(("compact", "embedding shards"), tasks, Compacting(path))
        moving = Moving(tuple(tasks), path)
        gone = moving(self.store).files
        kept = [line for line in lines if line["file_no"] not in gone]
        return [*kept, *(one["shard"] for one in made if one["shard"])], moving

    # --- ledger -------------------------------------------------------------------------------

    def _ledger(self, folder: str, embeddings: Sequence[FileLine], moving: Moving | None) -> Ledger:
        lines = snapshot.files_of(self._parent, "ledger")
        files = sorted(line["file_no"] for line in embeddings)
        return Ledger(
            folder,
            records=f"{self.scratch.folder}/assembled",
            rows=Remaining(tuple(line["path"] for line in lines), self._sparing),
            divided=tuple(line.get("partition") for line in lines),
            cuts=duplicates.cuts(files, self._parent["counts"]["duplicate"]),
            moved=moving,
            renamed={},
        )

    @cached_property
    def _sparing(self) -> Sparing:
        return Sparing(tuple(self.held.names), tuple(self.held.contents))

    # --- manifest -----------------------------------------------------------------------------

    def _manifest(self, files: Sequence[FileLine], counts: Counts) -> Manifest:
        """What is known before the index is built."""
        parent: Mapping[str, Any] = self._parent
        made = max([self.file_no - 1, *(one["file_no"] for one in files if "file_no" in one)])
        living, before = counts.living, Counts.of(parent["counts"]).living
        carried = (
            "scanned",
            "request",
            "sources",
            "metric",
            "model_fingerprint",
            "preprocessing_fingerprint",
            "features",
            "projection",
            "dim",
        )
        manifest = {
            "name": self.name,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "lookalike": __version__,
            "parent": parent["name"],
            **{key: parent[key] for key in carried if key in parent},
            "counts": {**counts.to_json(), "vectors": self._vectors},
            "changes": {
                "previous": before,
                "unchanged": counts.listed,
                "changed": 0,
                "removed": before - living,
                "unknown": counts.by_status["unknown"],
                "added": 0,
                "renamed": 0,
                "rehashed": 0,
            },
            "next_file_no": made + 1,
            "files": list(files),
            "stages": {},
        }
        redacted: Manifest = _redacted(manifest, self._sparing)
        return redacted


def _redacted(value: Any, sparing: Sparing) -> Any:
    """The same JSON without texts that have one of the names in them, such as a source."""
    if isinstance(value, dict):
        return {key: _redacted(one, sparing) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(one, sparing) for one in value]
    return _REDACTED if isinstance(value, str) and sparing.told_in(value) else value


def _knows(trained: Any, vectors: Sequence[npt.NDArray[Any]]) -> bool:
    """Whether a trained index gives back one of some vectors (d,), so that it holds what must go.

    A centroid of its own, or codes that lose next to nothing where others lose a tenth.
    """
    dim, kind = trained.spec.dim, trained.spec.kind
    ours = [vector for vector in vectors if len(vector) == dim]
    if kind == "exact" or not ours:
        return False
    prepared = trained.prepare(np.stack(ours))
    lists = trained.assign(prepared)
    near = [trained.centroids[lists]]
    if kind == "ivf_pq":
        near.append(trained.decode(trained.encode(prepared, lists), lists))
    lengths = np.linalg.norm(prepared, axis=1)
    return any(
        bool((np.linalg.norm(prepared - one, axis=1) <= _ALIKE * lengths).any()) for one in near
    )
