"""From embedding shards to one index shard, and the exact neighbours of the held-out queries.

One pass over the vectors serves both: the truth that the recall is measured against costs no second
reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lookalike.index.invlists import encode_shard
from lookalike.index.recall import ExactNeighbours
from lookalike.index.template import Template
from lookalike.store.shards import Ids, Vectors, iter_blocks
from lookalike.store.storage import write_bytes, write_file, write_json


@dataclass(frozen=True)
class EncodeTask:
    """One index shard to make; all paths are relative to the store.

    Attributes:
        number: Of the shard within its run.
        embeddings: The embedding shards it covers.
        output: The index shard.
        truth: Where the queries' exact neighbours among these vectors go.
        done: Written last.
    """

    number: int
    embeddings: tuple[str, ...]
    output: str
    truth: str
    done: str


def encode(task: EncodeTask, store: Path, template: Template, truth: ExactNeighbours) -> None:
    """Write the task's index shard, its part of the truth, and last its done file.

    Args:
        task: What to make.
        store: The store's root.
        template: What to encode with.
        truth: The queries, with no neighbours yet.
    """

    def blocks() -> Iterator[tuple[Ids, Vectors]]:
        for path in task.embeddings:
            for ids, vectors in iter_blocks(store / path):
                truth.update(ids, vectors)
                yield ids, vectors

    with write_file(store, task.output) as pending:
        header = encode_shard(template, blocks(), pending.write)
    write_bytes(store, task.truth, truth.to_bytes())
    line: dict[str, Any] = {**pending.finished.to_json(), "kind": "index", "rows": header.rows}
    write_json(store, task.done, {"shard": line, "header": asdict(header), "truth": task.truth})
