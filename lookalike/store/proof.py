"""The proof that images are forgotten: every file under a store is searched for their traces."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.errors import one_line
from lookalike.store.attempts import Record, recorded
from lookalike.store.files import Entry
from lookalike.store.ledger import ledger_tables
from lookalike.store.objects import Store
from lookalike.store.patterns import SHORTEST, Patterns
from lookalike.store.shards import iter_blocks
from lookalike.store.traces import Search, Traces


@dataclass(frozen=True)
class Find:
    """Something of a forgotten image that is still there.

    Attributes:
        path: Of the file, relative to the store.
        kind: "name", "content" or "vector"; "unreadable" where the file could not be searched.
        what: The name, the content's hash in hex, the vector's number; or why.
    """

    path: str
    kind: str
    what: str


@dataclass
class Proof:
    """What was searched, and what was found.

    Attributes:
        files: Files searched.
        bytes: Of them.
        names: Names searched for.
        contents: Hashes of contents.
        vectors: Vectors.
        shared: Of these, vectors that are those of other images, too, to the last bit.
        finds: What is still there; nothing, if all is well.
    """

    files: int = 0
    bytes: int = 0
    names: int = 0
    contents: int = 0
    vectors: int = 0
    shared: int = 0
    finds: list[Find] = field(default_factory=list)

    def to_json(self) -> Mapping[str, object]:
        """As `lookalike forget --json` prints it."""
        return {**self.__dict__, "finds": [one.__dict__ for one in self.finds]}


@dataclass(frozen=True)
class SearchTask:
    """Some files to search; paths are relative to the store."""

    number: int
    paths: tuple[str, ...]
    traces: str
    done: str


@recorded
def search_files(task: SearchTask, store: Store) -> Record:
    """Record what `search` finds in the task's files."""
    return search(store, Traces.from_bytes(store.read_bytes(task.traces)), task.paths)


@recorded
def search_names(task: SearchTask, store: Store) -> Record:
    """Record `names`: those of other images in ledger files that hold one of the names as a part.

    They are the traces' `living` (see `longer_names`).
    """
    names = Traces.from_bytes(store.read_bytes(task.traces)).names
    tables = (table for path in task.paths for table in ledger_tables(store.once(path)))
    return {"names": sorted(set(longer_names(tables, names)))}


def search(store: Store, traces: Traces, paths: Iterable[str]) -> Record:
    """Search some files.

    Returns:
        `finds`, [path, kind, what] of each (see `Find`); `shared`: numbers of the vectors found
        that rows of other images in these files have as well, to the last bit.
    """
    looking, found, shared = Search(traces), set[Find](), set[int]()
    for path in paths:
        try:
            here = {Find(path, *one) for one in looking.file(store.once(path), path)}
        except (OSError, ValueError, zipfile.BadZipFile, pa.ArrowException) as error:
            here = {Find(path, "unreadable", one_line(error))}
        found |= here
        suspects = {int(one.what) for one in here if one.kind == "vector"}
        if suspects and path.startswith("embeddings/"):
            shared.update(_shared(store, path, suspects, traces))
    return {"finds": [[*astuple(one)] for one in found], "shared": sorted(shared)}


def total(traces: Traces, entries: Iterable[Entry], records: Iterable[Record]) -> Proof:
    """The proof, of what was found in all files."""
    sizes = [entry.bytes for entry in entries]
    found, shared = set[Find](), set[int]()
    for record in records:
        found.update(Find(*one) for one in record["finds"])
        # A vector that rows of other images have as well tells nothing of those forgotten.
        shared.update(record["shared"])
    finds = (one for one in found if not (one.kind == "vector" and int(one.what) in shared))
    return Proof(
        len(sizes),
        sum(sizes),
        len(traces.names),
        len(traces.contents),
        len(traces.vectors),
        len(shared),
        sorted(finds, key=astuple),
    )


def all_files(store: Store) -> Iterator[Entry]:
    """Every file under a store, what killed writers left among them."""
    yield from store.entries()
    yield from store.leftovers()


def longer_names(tables: Iterable[pa.Table], names: Sequence[str]) -> Iterator[str]:
    """Names in the column `uri` that have one of some names as a part, and are none of them."""
    found = Patterns(
        [
            one
            for one in (name.encode("utf-8", "surrogateescape") for name in names)
            if len(one) >= SHORTEST
        ]
    )
    same = pa.array(names, pa.string())
    for table in tables:
        for chunk in table["uri"].chunks:
            others = chunk.filter(pc.invert(pc.is_in(chunk, same)))
            if len(others) and next(found.find(_joined(others)), None):
                for name in others.to_pylist():
                    if next(found.find(name.encode("utf-8", "surrogateescape")), None):
                        yield name


def _shared(store: Store, path: str, suspects: Collection[int], traces: Traces) -> Iterator[int]:
    """Numbers of those vectors that rows of other images have, too, in one embedding shard."""
    gone = pa.array(list(traces.contents), pa.binary(32))
    names = pa.array(list(traces.names), pa.string())
    shard = store.once(path)
    with pq.ParquetFile(shard) as file:
        table = file.read(columns=["uri", "content_sha256"])
    ours = pc.or_kleene(pc.is_in(table["uri"], names), pc.is_in(table["content_sha256"], gone))
    others = ~ours.to_numpy()
    start = 0
    for ids, vectors in iter_blocks(shard):
        kept = vectors[others[start : start + len(ids)]]
        start += len(ids)
        for number in suspects:
            for form in traces.vectors[number]:
                if form.shape == kept.shape[1:] and np.any((kept == form).all(axis=1)):
                    yield number


def _joined(array: Any) -> Any:
    """The bytes of an array of strings, one after the other."""
    return array.buffers()[2] or b""
