"""A store of vectors that grows and shrinks from night to night, indexed by the real stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.distances import Ids, Vectors
from lookalike.pipelines.build import IndexBuild
from lookalike.pipelines.config import parse_config
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.tasks import TaskRunner
from lookalike.store import shard_format, shards, snapshot
from lookalike.store.compacting import compact, plan_compaction
from lookalike.store.ledger import Counts
from lookalike.store.moving import Moved
from lookalike.store.objects import open_store
from lookalike.store.runs import Run
from lookalike.store.tombstones import write_tombstones
from tests import publishing

METADATA = pa.schema([("label", pa.string())])


class Nights:
    """Rows by id, and a snapshot for every night."""

    def __init__(self, store: Path, dim: int, **index: Any) -> None:
        self.store, self.dim = store, dim
        self.settings: dict[str, Any] = {"index": index, "runner": {"workers": 1}}
        self.rows: dict[int, npt.NDArray[np.float32]] = {}  # living ones
        self.lines: list[dict[str, Any]] = []
        self.deleted: Ids = np.empty(0, dtype=np.int64)
        self.next_file_no = 1
        self.manifest: dict[str, Any] | None = None
        self.new: list[dict[str, Any]] = []
        self.moved: Moved | None = None
        self.said: list[str] = []

    def add(self, vectors: npt.NDArray[Any], dtype: str = "float32") -> Ids:
        """One more embedding shard."""
        number = self.next_file_no
        self.next_file_no += 1
        schema = shard_format.schema(self.dim, METADATA, {"lookalike.made_by": "test"}, dtype)
        path = f"embeddings/{number:08d}.parquet"
        with shards.open_shard(open_store(self.store), path, schema, number) as (writer, pending):
            for row, vector in enumerate(vectors):
                fields = {
                    "uri": f"/{number}/{row}.png",
                    "content_sha256": b"\0" * 32,
                    "width": 4,
                    "height": 3,
                    "format": "PNG",
                    "bytes": 9,
                    "label": f"group {row % 3}",
                }
                self.rows[writer.append(fields, vector)] = np.asarray(vector, dtype=np.float32)
        line = shards.shard_record(pending.finished, number, len(vectors))
        self.lines.append(line)
        self.new.append(line)
        first = number << 32
        return np.arange(first, first + len(vectors), dtype=np.int64)

    def remove(self, ids: npt.ArrayLike) -> None:
        """Tombstones."""
        gone = np.asarray(ids, dtype=np.int64)
        for one in gone.tolist():
            del self.rows[one]
        self.deleted = np.union1d(self.deleted, gone)

    def compact(self) -> Moved:
        """Merge shards as a run does."""
        tasks = plan_compaction(
            self.lines, self.deleted, self.next_file_no, "night", f"runs/night-{self.next_file_no}"
        )
        made = [compact(task, open_store(self.store), self.deleted)["shard"] for task in tasks]
        moved = Moved(tasks, self.deleted)
        self.lines = [line for line in self.lines if line["file_no"] not in moved.files]
        self.new = [line for line in self.new if line["file_no"] not in moved.files]
        self.lines += made
        self.new += made
        ids = moved(np.array([*self.rows], dtype=np.int64))
        self.rows = dict(zip(ids.tolist(), self.rows.values(), strict=True))
        self.deleted, self.next_file_no = moved.tombstones, self.next_file_no + len(tasks)
        self.moved = moved
        return moved

    def index(self, **settings: Any) -> dict[str, Any]:
        """Make the index and publish."""
        name = f"night-{self.next_file_no:04d}-{len(snapshot.names(open_store(self.store)))}"
        files = list(self.lines)
        if len(self.deleted):
            record = write_tombstones(
                open_store(self.store), f"snapshots/{name}/dead.npy", self.deleted
            )
            files.append({**record.to_json(), "kind": "tombstones"})
        manifest: dict[str, Any] = {
            "name": name,
            "features": [],
            "metric": "cosine",
            "dim": self.dim,
            "model_fingerprint": "m" * 64,
            "preprocessing_fingerprint": "p" * 64,
            "counts": {**Counts().to_json(), "vectors": len(self.rows)},
            "files": files,
            "stages": {},
        }
        config = parse_config({**self.settings, **settings}, [], vectors=True)
        scratch = Run(open_store(self.store), name)
        scratch.start()
        build = IndexBuild(
            TaskRunner(scratch, config.runner, _Said(self.said)),
            config,
            manifest,
            self.manifest,
            added=self.new,
            deleted=self.deleted,
            moved=self.moved,
        )
        build.run()
        publishing.publish(open_store(self.store), manifest)
        scratch.finish()
        self.manifest, self.new, self.moved = (
            snapshot.read_manifest(open_store(self.store)),
            [],
            None,
        )
        return self.manifest

    def living(self) -> tuple[Ids, Vectors]:
        """Ids (n,), ascending, and vectors (n, dim)."""
        ids = np.array(sorted(self.rows), dtype=np.int64)
        return ids, np.stack([self.rows[one] for one in ids.tolist()])


class _Said(Progress):
    """Keeps what is said."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(quiet=True)
        self.said = said

    def say(self, message: str) -> None:
        self.said.append(message)
