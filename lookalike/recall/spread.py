"""An index asked in tasks, so that no machine holds it: groups of shards, then blocks of queries.

    (group of shards) x questions -> candidates of all queries, dealt out by question and block
    (question, block)             -> candidates of all groups merged -> their rating

Tasks find what they need in a folder of the store's scratch, where `lay_out` put it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.batching import up_to
from lookalike.distances import Ids, Scores, worst_score
from lookalike.exact_neighbours import ExactNeighbours
from lookalike.recall.asking import Here, Question, Rater
from lookalike.recall.certificate import choose
from lookalike.search.vector_index import VectorIndex, merge_candidates, open_index
from lookalike.store.attempts import Part, Record, recorded
from lookalike.store.exchange import Dealing, Reference, taken
from lookalike.store.files import HashedName
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store
from lookalike.store.snapshot import files_of

_KINDS = ("embedding", "index", "tombstones")
_SCHEMA = pa.schema(
    [
        ("query", pa.int32()),  # its place in the block
        ("ids", pa.list_(pa.int64())),  # best first
        ("scores", pa.list_(pa.float32())),
        ("seconds", pa.float64()),  # this row's part of the time that scanning took
    ]
)


@dataclass(frozen=True)
class Laid:
    """What tasks are told of an index and of the queries; paths are relative to the store.

    Attributes:
        manifest: File of the manifest, as far as it tells of the index.
        truth: File of the queries and their neighbours.
        lists: File of the neighbours' lists (see `Rater`); "" where a task is to learn them.
        rows: Vectors that can be found.
        k: The recall that matters.
    """

    manifest: str
    truth: str
    lists: str
    rows: int
    k: int

    def queries(self, store: Store) -> ExactNeighbours:
        """The queries and their neighbours."""
        return ExactNeighbours.from_bytes(store.read_bytes(self.truth))

    def index(self, store: Store, shards: Sequence[str] | None = None) -> VectorIndex:
        """The index, or some of its shards."""
        return open_index(store, store.read_json(self.manifest), shards)


def lay_out(store: Store, folder: str, manifest: Manifest, truth: ExactNeighbours, k: int) -> Laid:
    """Put what tasks need to know into a folder."""
    files = [line for line in manifest["files"] if line["kind"] in _KINDS]
    known = {"files": files, "index": {"template": manifest["index"]["template"]}}
    store.write_json(f"{folder}/opened.json", known)
    store.put(f"{folder}/measured.npz", truth.to_bytes())
    rows = int(manifest["counts"]["vectors"])
    return Laid(f"{folder}/opened.json", f"{folder}/measured.npz", "", rows, k)


def shard_groups(manifest: Manifest, most: int) -> list[tuple[str, ...]]:
    """Index shards that one task maps, of about so many bytes together; one group at least."""
    lines = files_of(manifest, "index")
    sized = ((str(line["path"]), int(line["bytes"])) for line in lines)
    return [*up_to(sized, most)] or [()]


@dataclass(frozen=True)
class CertifyTask:
    """The certificate of an index that one task may open.

    Attributes:
        laid: What to ask, and with what.
        target: What the recall's lower bound should reach.
        before: The parent's setting (nprobe, rerank), where a little was added to its index.
    """

    laid: Laid
    target: float
    before: tuple[int, int] | None
    done: str
    number: int = 0


@recorded
def certify_index(task: CertifyTask, store: Store) -> Record:
    """Record the certificate, which is returned (see `certificate.choose`)."""
    laid = task.laid
    trial = Here(laid.index(store), laid.rows, laid.queries(store), laid.k)
    return choose(trial, laid.k, task.target, task.before)


@dataclass(frozen=True)
class Inquiry:
    """Questions that are asked together."""

    laid: Laid
    folder: str
    groups: tuple[tuple[str, ...], ...]
    questions: tuple[Question, ...]
    queries: int

    @cached_property
    def parts(self) -> list[tuple[Question, slice]]:
        """Each question's blocks of queries: the partitions."""
        return [
            (question, rows)
            for question in self.questions
            for rows in question.blocks(self.queries)
        ]


def deal(number: int, store: Store, inquiry: Inquiry) -> Record:
    """Ask one group of shards everything, and deal its candidates out to partitions."""
    return _deal(Part(f"{inquiry.folder}/dealt", number), store, inquiry)


@recorded
def _deal(part: Part, store: Store, inquiry: Inquiry) -> Record:
    laid = inquiry.laid
    truth = laid.queries(store)
    index = laid.index(store, inquiry.groups[part.number])
    name = HashedName(part.done.removesuffix(".json"), ".arrow")
    with Dealing(store, name, len(inquiry.parts)) as dealing:
        for partition, (question, rows) in enumerate(inquiry.parts):
            began = time.perf_counter()
            wanted = min(question.depth + 1, laid.rows)
            ids, scores = index.candidates(truth.queries[rows], question.nprobe, wanted)
            seconds = time.perf_counter() - began
            # That each partition has its task, one group tells of all queries.
            there = (ids >= 0).any(axis=1) | (part.number == 0)
            table = _table(ids, scores, np.flatnonzero(there), seconds)
            dealing.write(table, np.full(len(table), partition))
    return dealing.record()


def _table(ids: Ids, scores: Scores, rows: npt.NDArray[np.intp], seconds: float) -> pa.Table:
    """Candidates of some queries, without the places that hold none."""
    there = ids[rows] >= 0
    ends = np.cumsum(there.sum(axis=1), dtype=np.int32)
    offsets = pa.array(np.concatenate([np.zeros(1, np.int32), ends]))
    columns = (
        pa.ListArray.from_arrays(offsets, pa.array(values[rows][there])) for values in (ids, scores)
    )
    share = np.full(len(rows), seconds / max(1, len(rows)))
    return pa.table([pa.array(rows.astype(np.int32)), *columns, pa.array(share)], schema=_SCHEMA)


def take(number: int, pieces: list[Reference], store: Store, inquiry: Inquiry) -> Record:
    """Merge what all groups gave for one block of queries, and rate it."""
    return _take(Part(f"{inquiry.folder}/taken", number), store, inquiry, pieces)


@recorded
def _take(part: Part, store: Store, inquiry: Inquiry, pieces: list[Reference]) -> Record:
    laid = inquiry.laid
    question, rows = inquiry.parts[part.number]
    truth, index = laid.queries(store), laid.index(store, ())
    lists = np.load(store.local(laid.lists), mmap_mode="r", allow_pickle=False)
    rater = Rater(index, laid.rows, truth, laid.k, lists)
    count = len(truth.query_ids[rows])
    ids = np.full((count, rater.wanted(question)), -1, dtype=np.int64)
    scores = np.full(ids.shape, worst_score(truth.metric), dtype=np.float32)
    seconds, found = 0.0, 0
    for piece in sorted(set(pieces)):  # of two with the same score, the first shard's stays
        table = taken(store, [piece], _SCHEMA)
        own, some, values = _arrays(table, ids.shape[1], truth.metric)
        ids[own], scores[own] = merge_candidates(ids[own], scores[own], some, values, truth.metric)
        seconds, found = seconds + float(table["seconds"].to_numpy().sum()), found + len(own)
    return {"rows": found, "answer": {"seconds": seconds, **rater.rate(question, rows, ids)}}


def _arrays(table: pa.Table, width: int, metric: str) -> tuple[Ids, Ids, Scores]:
    """What `_table` was made of: queries (n,), ids (n, width) and scores (n, width)."""
    table = table.combine_chunks()
    counts = np.diff(table["ids"].chunk(0).offsets.to_numpy()) if len(table) else np.zeros(0, int)
    there = np.arange(width) < counts[:, None]
    ids = np.full(there.shape, -1, dtype=np.int64)
    scores = np.full(there.shape, worst_score(metric), dtype=np.float32)
    if len(table):
        ids[there] = table["ids"].chunk(0).flatten().to_numpy()
        scores[there] = table["scores"].chunk(0).flatten().to_numpy()
    return table["query"].to_numpy().astype(np.int64), ids, scores
