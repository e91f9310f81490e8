"""The proof that images are forgotten, in tasks: each searches some of the store's files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from lookalike.batching import at_least
from lookalike.distances import candidate_vectors
from lookalike.ivf.trained_index import load_trained_index
from lookalike.pipelines.tasks import TaskRunner
from lookalike.store import snapshot
from lookalike.store.attempts import Record
from lookalike.store.files import HashedName
from lookalike.store.forgetting import Held, meanings
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store
from lookalike.store.proof import (
    Proof,
    SearchTask,
    all_files,
    search,
    search_files,
    search_names,
    total,
)
from lookalike.store.traces import Traces

_TASK_BYTES = 256 << 20  # of files that one task searches
_WORTH_A_PROCESS = 1 << 30  # bytes: fewer are searched before another has started


@dataclass(frozen=True)
class Proving:
    """Searches all that is left of a store; its own scratch goes when that is done.

    Attributes:
        task_runner: Of the run of `forget`, whose scratch is all that is there beside the snapshot.
        held: What was to be forgotten.
        manifest: Of the snapshot.
    """

    task_runner: TaskRunner
    held: Held
    manifest: Manifest

    def prove(self) -> Proof:
        """The proof; nothing of the run is left."""
        store, own = self.task_runner.store, f"runs/{self.task_runner.scratch.name}/"
        traces = self._traces()
        ledger = (
            (line["path"], line["bytes"]) for line in snapshot.files_of(self.manifest, "ledger")
        )
        named = self._run("names", "parts of the ledger", ledger, traces, search_names)
        living = sorted({name for record in named for name in record["names"]})
        traces = replace(traces, living=living)
        entries = [entry for entry in all_files(store) if not entry.path.startswith(own)]
        sizes = ((entry.path, entry.bytes) for entry in entries)
        found = self._run("search", "parts", sizes, traces, search_files)
        self.task_runner.scratch.finish()
        searched = {entry.path for entry in entries}
        late = [entry for entry in all_files(store) if entry.path not in searched]
        found.append(search(store, traces, [entry.path for entry in late]))
        return total(traces, [*entries, *late], found)

    def _run(
        self,
        stage: str,
        noun: str,
        files: Iterable[tuple[str, int]],
        traces: Traces,
        work: Callable[[SearchTask, Store], Record],
    ) -> list[Record]:
        """What tasks record of some files (path and bytes)."""
        listed = sorted(files)
        folder = f"{self.task_runner.scratch.folder}/{stage}"
        path = self.task_runner.store.put(
            HashedName(f"{folder}/traces", ".json"), traces.to_bytes()
        ).path
        digest = hashlib.sha256(repr((path, listed)).encode()).hexdigest()[:12]
        tasks = [
            SearchTask(number, paths, path, f"{folder}/{digest}/{number:06d}.json")
            for number, paths in enumerate(at_least(listed, _TASK_BYTES))
        ]
        some = self.task_runner.worth(sum(size for _, size in listed), _WORTH_A_PROCESS)
        return some.run((stage, noun), tasks, work)

    def _traces(self) -> Traces:
        """Everything to search for: also the names that were given and not found."""
        held, manifest = self.held, self.manifest
        unknown = {name for one in held.unknown for name in meanings(one)}
        name = str(manifest["index"]["template"])
        trained = load_trained_index(self.task_runner.store.local_folder(f"templates/{name}"), name)
        vectors = []
        for vector in held.vectors:
            forms = [vector, vector.astype(np.float16)]
            if len(vector) == manifest["dim"]:
                one = vector[None]
                forms += [candidate_vectors(one, manifest["metric"])[0], trained.prepare(one)[0]]
            vectors.append(forms)
        return Traces(sorted({*held.names, *unknown}), held.contents, vectors)
