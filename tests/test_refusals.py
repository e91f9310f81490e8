"""Data that do not fit together are refused with both values, before anybody relies on them.

`make test` runs this a second time under `python -O`, which drops every assert statement.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lookalike.images.rejections import NotAnImage, Rejected
from lookalike.ivf.coarse import kmeans
from lookalike.ivf.part_files import write_part
from lookalike.ivf.shard_files import write_shard
from lookalike.reconcile.copying import COPY_ROW, copy_rows
from lookalike.search.batch_search import BatchSpec, write_batch
from lookalike.store import shard_format, shards
from lookalike.store.compacting import CompactTask, compact
from lookalike.store.durable import write_file
from lookalike.store.files import HashedName
from lookalike.store.index_header import ShardHeader
from lookalike.store.ledger import Counts, LedgerRow
from lookalike.store.objects import open_store
from lookalike.store.storage import uri_from_path

HEADER = ShardHeader("0" * 64, "plain", 4, 0, 2, 2, 8, 0, 3)
CODES, IDS = np.zeros((4, 8), np.uint8), np.arange(4)
NONE_DELETED = np.empty(0, dtype=np.int64)


def into_nowhere(data: Any) -> int:
    return io.BytesIO().write(data)


def shard(header: ShardHeader, sizes: list[int], *cuts: int) -> None:
    runs = zip(np.split(CODES, cuts), np.split(IDS, cuts), strict=True)
    write_shard(header, sizes, runs, into_nowhere)


def part(header: ShardHeader, codes: int, ids: int) -> None:
    write_part(header, np.array([1, 3]), [CODES[:codes]], IDS[:ids], into_nowhere)


PART = replace(HEADER, layout="columns")
BATCH = BatchSpec("/s", "/s", "", "", (), {}, queries=2, block_rows=1, together=1, k=1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: shard(HEADER, [4]), "2 lists announced, 1 sizes given"),
        (lambda: shard(HEADER, [1, 2]), "4 rows announced, 3 in lists"),
        (lambda: shard(HEADER, [1, 3], 2), "ends within list 1: 2 rows so far, lists end at 1"),
        (lambda: shard(PART, [1, 3]), "plain or blocks32, got columns"),
        (
            lambda: write_shard(HEADER, [1, 3], [(CODES[:1], IDS[:1])], into_nowhere),
            "4 rows announced, 1 given",
        ),
        (
            lambda: shard(replace(HEADER, rows=1 << 32), [0, 1 << 32]),
            "fewer than 4,294,967,296 rows, got 4,294,967,296",
        ),
        (lambda: part(HEADER, 4, 4), "layout columns, got plain"),
        (lambda: part(PART, 4, 3), "4 rows announced, 3 ids given"),
        (lambda: part(PART, 3, 4), "32 bytes of codes announced, 24 given"),
        (lambda: kmeans(np.zeros((3, 2), np.float32), 4, 1), "3 rows, k is 4"),
        (
            lambda: write_batch(BATCH, np.zeros((3, 2), np.float32), np.zeros((2, 0)), None),
            "2 queries, got 3 vectors and ids to leave out for 2",
        ),
        (lambda: Rejected("tired"), "'tired'.*not_an_image"),
        (lambda: NotAnImage(reason="tired"), "'tired'.*system_file"),
        (lambda: Counts().add(LedgerRow("/a", "lost")), "/a: a status is embedded.*'lost'"),
        (lambda: uri_from_path(b"a/b"), "absolute.*a/b"),
    ],
    ids=[
        "sizes",
        "rows in lists",
        "a run within a list",
        "a part as a shard",
        "rows of runs",
        "rows of a file",
        "a shard as a part",
        "ids",
        "codes",
        "centroids",
        "queries",
        "rejected",
        "ignored",
        "status",
        "relative",
    ],
)
def test_what_does_not_fit_together(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.fixture
def line(tmp_path: Path) -> dict[str, Any]:
    """A shard of three rows, as a manifest lists it."""
    store, schema = open_store(tmp_path), shard_format.schema(2, pa.schema([]), {}, "float32")
    with shards.open_shard(store, "embeddings/1.parquet", schema, 1) as (writer, pending):
        for number in range(3):
            writer.append({"uri": f"/{number}"}, np.ones(2, np.float32))
    return shards.shard_record(pending.finished, 1, 3)


@pytest.mark.parametrize(
    ("told", "rows", "words"),
    [
        ({"file_no": 2}, 3, f"must have the ids {2 << 32} to .* they have {1 << 32} to "),
        ({"rows": 4}, 4, "4 rows listed, 3 there"),
        ({}, 2, "2 living rows, 3 written"),
    ],
    ids=["ids", "rows listed", "rows living"],
)
def test_a_shard_that_is_not_as_listed(
    line: dict[str, Any], told: dict[str, int], rows: int, words: str, tmp_path: Path
) -> None:
    task = CompactTask(0, 9, ({**line, **told},), rows, "embeddings/9", "runs/r/0.json")
    with pytest.raises(ValueError, match=f"{tmp_path}/embeddings/.*parquet: .*{words}"):
        compact(task, open_store(tmp_path), NONE_DELETED)
    assert not (tmp_path / task.done).exists()


def test_a_copy_that_has_no_id_of_its_shard(tmp_path: Path) -> None:
    rows = pa.table([[1 << 32, (1 << 32) + 2], [5, 6], ["/a", "/b"]], schema=COPY_ROW)
    name = HashedName("embeddings/1", ".parquet")
    with pytest.raises(RuntimeError, match=f"2 rows to copy must have the ids from {1 << 32} on"):
        copy_rows(open_store(tmp_path), name, 1, rows, {}, pa.schema([]))


def test_a_file_has_no_record_while_it_is_written(tmp_path: Path) -> None:
    with write_file(tmp_path, "a") as pending, pytest.raises(RuntimeError, match="before the end"):
        _ = pending.finished
    assert pending.finished.bytes == 0
