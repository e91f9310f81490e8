"""From embedding shards to a part of the index, and the exact neighbours of the held-out queries.

A task reads each vector once, and does three things with it: it encodes it, compares it with the
held-out queries (which gives the ground truth that recall is measured by), and, for a sample,
measures how much its code loses. In memory are a few thousand vectors and the codes of the part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lookalike.distances import Ids, Vectors, candidate_vectors, check_vectors
from lookalike.errors import RequestError
from lookalike.exact_neighbours import ExactNeighbours
from lookalike.ivf.fast_scan import Codes
from lookalike.ivf.fitness import Fitness
from lookalike.ivf.part_files import open_part, write_part
from lookalike.ivf.shard_files import Counts, Write, list_sizes, stored_header, write_shard
from lookalike.ivf.train import Rows
from lookalike.ivf.trained_index import TrainedIndex
from lookalike.store.attempts import Record, recorded
from lookalike.store.files import HashedName
from lookalike.store.index_header import HEADER_BYTES, ShardHeader
from lookalike.store.objects import Store
from lookalike.store.shards import count_rows, iter_blocks
from lookalike.store.tombstones import among

_BLOCK_ROWS = 4096  # small row groups are put together: matrix products want thousands of rows
_RUN_ROWS = 1 << 16  # entries laid out at a time
# One row in so many is decoded again, to see how well the trained index fits; of few rows, more.
_MEASURED, _MEASURED_ROWS = 8, 4096
_SUMS = ("rows", "lost", "rotated")


@dataclass(frozen=True)
class EncodeTask:
    """One part of the index to make; all paths are relative to the store.

    `output` and `truth` are names without the hash of the content, which is known only when the
    file is written; the record has the complete names.

    Attributes:
        number: Of the part within its run.
        embeddings: The embedding shards it covers.
        output: The part, or the finished index shard where it is `whole`; "" where only the truth
            is wanted, of shards that are encoded already.
        truth: Where the queries' exact neighbours among these vectors go.
        whole: Whether this is the only part, which is written as the finished shard at once.
        removed: A .npy file of ids (n,) int64, ascending, to leave out; "" for none.
        queries: The queries' file; "" for that of the run.
    """

    number: int
    embeddings: tuple[str, ...]
    output: str
    truth: str
    done: str
    whole: bool = False
    removed: str = ""
    queries: str = ""


class Encoded:
    """Entries of an index in memory, in the order they came: lists, codes and ids."""

    def __init__(self, trained: TrainedIndex, capacity: int) -> None:
        """Make room for `capacity` entries."""
        self._trained = trained
        self._codes: Codes = np.empty((capacity, trained.code_size), dtype=np.uint8)
        self._lists: Ids = np.empty(capacity, dtype=np.int64)
        self._ids: Ids = np.empty(capacity, dtype=np.int64)
        self._stride = max(1, min(_MEASURED, capacity // _MEASURED_ROWS))
        self.fitness = Fitness(trained.spec.nlist)
        self.rows = 0

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Encode a block of checked vectors (n, dim) with their ids (n,)."""
        trained = self._trained
        rows = slice(self.rows, self.rows + len(ids))
        prepared = trained.prepare(vectors)
        lists = trained.assign(prepared)
        codes = trained.encode(prepared, lists)
        self._ids[rows], self._lists[rows], self._codes[rows] = ids, lists, codes
        some = slice(None, None, self._stride)
        candidates = candidate_vectors(vectors[some], trained.spec.metric)
        errors = prepared[some] - trained.decode(codes[some], lists[some])
        self.fitness.add(candidates, prepared[some], errors, lists[some])
        self.rows += len(ids)

    def write(self, whole: bool, write: Write) -> ShardHeader:
        """Write them by (list, id), as a finished shard or as a part of one.

        Raises:
            RequestError: An id comes twice.
        """
        trained, rows = self._trained, self.rows
        ids, lists = self._ids[:rows], self._lists[:rows]
        ascending = np.sort(ids)
        repeated = ascending[1:][np.diff(ascending) == 0]
        if len(repeated):
            raise RequestError(f"id {repeated[0]} comes more than once in a shard")
        sizes = np.bincount(lists, minlength=trained.spec.nlist)
        order = np.lexsort((ids, lists))
        header = shard_header(
            trained,
            trained.layout if whole else "columns",
            0,
            trained.spec.nlist,
            rows,
            (int(ascending[0]), int(ascending[-1])) if rows else (-1, -1),
        )
        if whole:
            runs = [order[begin:end] for begin, end in _runs(sizes)]
            write_shard(header, sizes, ((self._codes[run], ids[run]) for run in runs), write)
        else:
            pieces = range(0, rows, _RUN_ROWS)
            codes = (self._codes[order[begin : begin + _RUN_ROWS]] for begin in pieces)
            write_part(header, sizes, codes, ids[order], write)
        return header


def shard_header(
    trained: TrainedIndex, layout: str, first: int, last: int, rows: int, ids: tuple[int, int]
) -> ShardHeader:
    """The header of `rows` entries of the lists [first, last), with ids from ids[0] to ids[1]."""
    return ShardHeader(
        trained.sha256, layout, rows, first, last, trained.spec.nlist, trained.code_size, *ids
    )


def _runs(sizes: Counts) -> Iterator[tuple[int, int]]:
    """Entries of consecutive whole lists, about _RUN_ROWS at a time: [begin, end) each."""
    ends = np.cumsum(sizes)
    begin = 0
    while begin < (ends[-1] if len(ends) else 0):
        last = max(
            int(np.searchsorted(ends, begin + _RUN_ROWS, side="right")) - 1,
            int(np.searchsorted(ends, begin, side="right")),  # one list at least
        )
        yield begin, int(ends[last])
        begin = int(ends[last])


@recorded
def encode(task: EncodeTask, store: Store, trained: TrainedIndex, truth: ExactNeighbours) -> Record:
    """Write the task's part of the index and of the truth, and last its record, which is returned.

    The record holds `shard` (the file's line for a manifest), `header`, `truth` (path, sha256 and
    bytes), `removed` (rows left out) and `fitness` (see `total_fitness`); `truth` and `removed`
    alone where nothing is encoded. Of several attempts the first one's counts (see
    `store.attempts`).

    Raises:
        RequestError: A vector cannot be indexed, or an id comes twice; the file is named.
    """
    there = sum(count_rows(store.parquet(path)) for path in task.embeddings)
    removed: Ids = np.empty(0, dtype=np.int64)
    if task.removed:  # mapped: there may be many, and few of them are of these files
        removed = np.load(store.local(task.removed), mmap_mode="r", allow_pickle=False)
    encoded = Encoded(trained, there if task.output else 0)
    found = left_out = 0
    for ids, vectors in _merged(_checked(task, store, trained)):
        found += len(ids)
        if len(removed):
            kept = ~among(ids, removed)
            left_out += len(ids) - int(kept.sum())
            ids, vectors = ids[kept], vectors[kept]
        truth.update(ids, vectors)
        if task.output:
            encoded.add(ids, vectors)
    if found != there:
        files = ", ".join(store.shown(path) for path in task.embeddings)
        raise ValueError(f"{files}: the footers say {there:,} rows, {found:,} were read")
    made: dict[str, Any] = {"removed": left_out}
    if task.output:
        name = HashedName(task.output, ".lists" if task.whole else ".part")
        with store.write(name) as pending:
            header = encoded.write(task.whole, pending.write)
        line = {**pending.finished.line("index"), "rows": header.rows}
        fitness = {name: getattr(encoded.fitness, name) for name in _SUMS}
        made |= {"shard": line, "header": asdict(header), "fitness": fitness}
    record = store.put(HashedName(task.truth, ".npz"), truth.to_bytes())
    return {**made, "truth": record.to_json()}


def total_fitness(
    store: Store, done: Iterable[Mapping[str, Any]], trained: TrainedIndex
) -> Fitness:
    """How well the trained index fits what was encoded: lists of all rows, losses of some."""
    total = Fitness(trained.spec.nlist)
    of = (trained.sha256, trained.code_size, trained.spec.nlist)
    for one in done:
        for name in _SUMS:
            setattr(total, name, getattr(total, name) + one["fitness"][name])
        path = one["shard"]["path"]
        if one["header"]["layout"] == "columns":
            total.sizes += open_part(store, path, *of).sizes(0, trained.spec.nlist)[1]
        else:
            total.sizes += shard_sizes(store, [path], trained)
    return total


def shard_sizes(store: Store, shards: Iterable[str], trained: TrainedIndex) -> Counts:
    """Entries of each list in index shards (paths relative to the store): (nlist,) int64."""
    total = np.zeros(trained.spec.nlist, dtype=np.int64)
    paths = list(shards)
    headers = headers_of(store, paths, trained)
    tables = store.read_many(
        [(path, [(HEADER_BYTES, 4 * one.lists)]) for path, one in zip(paths, headers, strict=True)]
    )
    for path, header, [table] in zip(paths, headers, tables, strict=True):
        total[header.first_list : header.last_list] += list_sizes(store.shown(path), header, table)
    return total


def headers_of(store: Store, shards: Sequence[str], trained: TrainedIndex) -> list[ShardHeader]:
    """The headers of a trained index's shards (paths relative to the store); no more is read.

    Raises:
        RequestError: One is damaged, or was made with another trained index.
    """
    of = (trained.sha256, trained.code_size, trained.spec.nlist)
    return store.at_once(lambda path: stored_header(store, path, *of)[0], shards)


def fitness_of(trained: TrainedIndex, sample: Rows, most: int) -> Fitness:
    """How well a trained index fits a sample of vectors, of which `most` rows are looked at."""
    fitness, spec = Fitness(trained.spec.nlist), trained.spec
    rows = np.linspace(0, len(sample) - 1, min(most, len(sample))).astype(np.intp)
    for start in range(0, len(rows), _BLOCK_ROWS):
        vectors = check_vectors(sample[rows[start : start + _BLOCK_ROWS]], spec.dim, spec.metric)
        prepared = trained.prepare(vectors)
        lists = trained.assign(prepared)
        decoded = trained.decode(trained.encode(prepared, lists), lists)
        fitness.add(candidate_vectors(vectors, spec.metric), prepared, prepared - decoded, lists)
    return fitness


def _checked(
    task: EncodeTask, store: Store, trained: TrainedIndex
) -> Iterator[tuple[Ids, Vectors]]:
    """Row groups of the task's files, held against the rules for vectors."""
    spec = trained.spec
    for path in task.embeddings:
        for ids, vectors in iter_blocks(store.once(path)):
            try:
                yield ids, check_vectors(vectors, spec.dim, spec.metric)
            except RequestError as error:
                first = int(ids[0]) if len(ids) else -1
                raise RequestError(f"{store.shown(path)}: from id {first} on, {error}") from error


def _merged(blocks: Iterable[tuple[Ids, Vectors]]) -> Iterator[tuple[Ids, Vectors]]:
    """Consecutive blocks put together until they have _BLOCK_ROWS rows."""
    held: list[tuple[Ids, Vectors]] = []
    for block in blocks:
        held.append(block)
        if sum(len(ids) for ids, _ in held) >= _BLOCK_ROWS:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(blocks: list[tuple[Ids, Vectors]]) -> tuple[Ids, Vectors]:
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate([ids for ids, _ in blocks]), np.concatenate([one for _, one in blocks])
