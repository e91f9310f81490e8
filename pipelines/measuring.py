"""What a report measures, as a task of the engine: the launching process opens no index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lookalike.errors import StoreWriteError
from lookalike.faults import Faults
from lookalike.pipelines.runner import EngineError
from lookalike.pipelines.tasks import TaskRunner
from lookalike.recall.measured import MeasureTask, Samples, measure_index
from lookalike.store.files import HashedName, json_bytes
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store

_OF_PARENT = ("name", "model_fingerprint", "next_file_no")


@dataclass(frozen=True)
class Measuring:
    """Has a task of a run do what `lookalike.recall.measured.measure` does.

    Attributes:
        task_runner: Has tasks of the run done.
    """

    task_runner: TaskRunner

    def __call__(
        self,
        store: Store,
        manifest: Manifest,
        parent: Mapping[str, Any] | None,
        samples: Samples,
        faults: Faults,
    ) -> Mapping[str, Any]:
        """See `measure`; where the engine fails, there is nothing.

        Raises:
            StoreWriteError: The store takes no more files.
        """
        ids = {key: [{"id": row.get("id")} for row in rows] for key, rows in samples.items()}
        given = {
            "manifest": manifest,
            "parent": parent and {name: parent.get(name) for name in _OF_PARENT},
            "samples": ids,
        }

        def run() -> Mapping[str, Any]:
            name = HashedName(f"{self.task_runner.scratch.folder}/measured/given", ".json")
            path = store.put(name, json_bytes(given)).path
            task = MeasureTask(path, path.replace("/given-", "/found-"))
            try:
                return self.task_runner.run(("measure", "reports"), [task], measure_index)[0]
            except EngineError as error:
                if error.kind.endswith(StoreWriteError.__name__):  # nor could the rest be written
                    raise StoreWriteError(str(error)) from error
                raise

        found = faults.spare("searches", run, {"faults": {}})
        faults.take(found["faults"])
        return {name: one for name, one in found.items() if name != "faults"}
