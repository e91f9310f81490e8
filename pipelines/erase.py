"""The next snapshot without some images: their shards compacted, index and ledger written anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike import __version__
from lookalike.errors import RequestError
from lookalike.faults import Faults
from lookalike.ivf.template import load_template
from lookalike.metrics import Ids
from lookalike.pipelines.build import IndexBuild
from lookalike.pipelines.config import Config
from lookalike.pipelines.facts import write_report
from lookalike.pipelines.measuring import Measuring
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.tasks import run_tasks
from lookalike.reconcile.assembling import rewrite_ledger
from lookalike.store import forgotten, snapshot
from lookalike.store.compacting import Moved, plan_compaction
from lookalike.store.forgetting import Held
from lookalike.store.ledger import Counts, as_known, ledger_tables
from lookalike.store.objects import Store
from lookalike.store.patterns import SHORTEST, Patterns
from lookalike.store.proof import spellings
from lookalike.store.runs import Run
from lookalike.store.tombstones import read_tombstones, write_tombstones
from lookalike.transforms.compact import CompactShards

_ALIKE = (
    1e-3  # of a vector's length: a template that gives it back this well has learnt it by heart
)
_INDEX = ("index", "template", "truth")
_OWN = ("embedding", "ledger", "duplicates", "tombstones", "report", "forgotten", *_INDEX)
_INDEX_KEYS = ("index", "search", "certificate")
_REDACTED = "(forgotten)"

Line = dict[str, Any]


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

    def build(self) -> dict[str, Any]:
        """Compact, index, write ledger and report; the manifest, ready to be published."""
        parent, folder = self._parent, f"snapshots/{self.name}"
        self.check()
        embeddings, moved = self._compact()
        tombstones = moved.tombstones if moved else self._dead
        ledger = rewrite_ledger(
            self.store, snapshot.files_of(parent, "ledger"), folder, keep=self._keep, moved=moved
        )
        files = [line for line in parent["files"] if line["kind"] not in _OWN]
        files += [*embeddings, *ledger]
        if len(tombstones):
            record = write_tombstones(self.store, f"{folder}/tombstones.npy", tombstones)
            files.append({**record.to_json(), "kind": "tombstones"})
        record = forgotten.write_forgotten(
            self.store, f"{folder}/forgotten.npy", self.held.contents, self._forgotten_before()
        )
        files.append({**record.to_json(), "kind": forgotten.KIND})
        manifest = self._manifest(files)
        if moved:
            learnt = _knows(self._template(), self.held.vectors)
            if learnt:
                self.progress.say("train: anew, the template knows what is to be forgotten")
            IndexBuild(
                self.store, self.scratch, self.config, self.progress, manifest,
                None if learnt else parent, dead=tombstones, moved=moved,
            ).run()  # fmt: skip
        else:
            manifest["files"] += [line for line in parent["files"] if line["kind"] in _INDEX]
            manifest |= {key: parent[key] for key in _INDEX_KEYS}
        manifest["files"] += write_report(
            self.store, folder, manifest, parent, {}, Faults(self.progress.say),
            Measuring(self.scratch, self.config.runner, self.progress),
        )  # fmt: skip
        return manifest

    @cached_property
    def _parent(self) -> Mapping[str, Any]:
        return snapshot.read_manifest(self.store)

    @cached_property
    def _dead(self) -> Ids:
        """The tombstones of the published snapshot."""
        lines = snapshot.files_of(self._parent, "tombstones")
        return read_tombstones(self.store.local(line["path"]) for line in lines)

    @cached_property
    def _vectors(self) -> int:
        """Living rows that stay."""
        rows = sum(line["rows"] for line in snapshot.files_of(self._parent, "embedding"))
        return int(rows - len(np.union1d(self._dead, self.held.ids)))

    def _template(self) -> Any:
        name = self._parent["index"]["template"]
        return load_template(self.store.local_folder(f"templates/{name}"), name)

    def _forgotten_before(self) -> forgotten.Forgotten:
        lines = snapshot.files_of(self._parent, forgotten.KIND)
        return forgotten.Forgotten.load(self.store.local(line["path"]) for line in lines)

    # --- embeddings ---------------------------------------------------------------------------

    def _compact(self) -> tuple[list[Line], Moved | None]:
        """The lines of all embedding shards, those that held something of the images anew."""
        lines = snapshot.files_of(self._parent, "embedding")
        if not len(self.held.ids):
            return lines, None
        dead = np.union1d(self._dead, self.held.ids)
        only = set(np.unique(self.held.ids >> 32).tolist())
        tasks = plan_compaction(
            lines, dead, self.file_no, self.scratch.name, self.scratch.folder, only=only
        )
        path = f"{self.scratch.folder}/dead.npy"
        write_tombstones(self.store, path, dead)
        made = run_tasks(
            self.scratch, ("compact", "embedding shards"), tasks,
            CompactShards(self.store.name, path), self.config.runner, self.progress,
        )  # fmt: skip
        moved = Moved(tasks, dead)
        kept = [line for line in lines if line["file_no"] not in moved.files]
        return [*kept, *(one["shard"] for one in made if one["shard"])], moved

    # --- ledger -------------------------------------------------------------------------------

    def _keep(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Rows of the ledger that stay; what was removed before has been told once."""
        ours = pc.or_kleene(
            pc.is_in(table["uri"], self._names), pc.is_in(table["content_sha256"], self._contents)
        )
        gone = pc.or_(ours.fill_null(False), pc.equal(table["status"], "removed"))
        keep: npt.NDArray[np.bool_] = ~gone.to_numpy()
        # What a rejected row says of itself is its own affair; what it says of others is not.
        said = as_known(table).select(["uri", "status", "detail"]).to_pylist()
        for number, row in enumerate(said):
            detail = (row["detail"] or "").replace(row["uri"], "")
            if keep[number] and detail and row["status"] != "duplicate":
                keep[number] = not _mentions(detail, self._mentioned, self.held.names)
        return keep

    @cached_property
    def _names(self) -> Any:
        return pa.array(self.held.names, pa.string())

    @cached_property
    def _contents(self) -> Any:
        return pa.array(self.held.contents, pa.binary(32))

    @cached_property
    def _mentioned(self) -> Patterns:
        spelt = (one for name in self.held.names for one in spellings(name))
        return Patterns([one for one in spelt if len(one) >= SHORTEST])

    # --- manifest -----------------------------------------------------------------------------

    def _manifest(self, files: Sequence[Line]) -> dict[str, Any]:
        """What is known before the index is built."""
        parent = self._parent
        counts = Counts()
        for line in files:
            if line["kind"] == "ledger":
                for table in ledger_tables(self.store.once(line["path"])):
                    _count(counts, table)
        made = max([self.file_no - 1, *(one["file_no"] for one in files if "file_no" in one)])
        living, before = counts.living, Counts.of(parent["counts"]).living
        carried = ("scanned", "request", "sources", "metric", "model_fingerprint",
                   "preprocessing_fingerprint", "features", "projection", "dim")  # fmt: skip
        manifest = {
            "name": self.name,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "lookalike": __version__,
            "parent": parent["name"],
            **{key: parent[key] for key in carried if key in parent},
            "counts": {**counts.to_json(), "vectors": self._vectors},
            "changes": {
                "previous": before, "unchanged": counts.listed, "changed": 0,
                "removed": before - living, "unknown": counts.by_status["unknown"],
                "added": 0, "renamed": 0, "rehashed": 0,
            },
            "next_file_no": made + 1,
            "files": list(files),
            "stages": {},
        }  # fmt: skip
        redacted: dict[str, Any] = _redacted(manifest, self._mentioned, self.held.names)
        return redacted


def _mentions(text: str, names: Patterns, whole: Sequence[str]) -> bool:
    """Whether a text has one of the names in it, or is one that is too short to look for."""
    found = next(names.find(text.encode("utf-8", "surrogateescape")), None)
    return found is not None or text in whole


def _redacted(value: Any, names: Patterns, whole: Sequence[str]) -> Any:
    """The same JSON without texts that have one of the names in them, such as a source."""
    if isinstance(value, dict):
        return {key: _redacted(one, names, whole) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(one, names, whole) for one in value]
    return _REDACTED if isinstance(value, str) and _mentions(value, names, whole) else value


def _count(counts: Counts, table: pa.Table) -> None:
    for column, add in (("status", counts.by_status), ("reason", counts.by_reason)):
        some = table if column == "status" else table.filter(pc.equal(table["status"], "rejected"))
        for one in pc.value_counts(some[column]).to_pylist():
            add[one["values"]] += one["counts"]


def _knows(template: Any, vectors: Sequence[npt.NDArray[Any]]) -> bool:
    """Whether a template gives back one of some vectors (d,), so that it holds what must go.

    A centroid of its own, or codes that lose next to nothing where others lose a tenth.
    """
    dim, kind = template.spec.dim, template.spec.kind
    ours = [vector for vector in vectors if len(vector) == dim]
    if kind == "exact" or not ours:
        return False
    prepared = template.prepare(np.stack(ours))
    lists = template.assign(prepared)
    near = [template.centroids[lists]]
    if kind == "ivf_pq":
        near.append(template.decode(template.encode(prepared, lists), lists))
    lengths = np.linalg.norm(prepared, axis=1)
    return any(bool((np.linalg.norm(prepared - one, axis=1) <= _ALIKE * lengths).any())
               for one in near)  # fmt: skip
