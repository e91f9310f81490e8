"""The proof that images are forgotten: every file under a store is searched for what they were.

For their names, plain and as JSON, HTML and URIs write them; for the hashes of their contents, as
bytes and in hex; for their vectors, as bytes of the types and forms in which vectors are kept.
Files are searched as they are, and what is compressed in them (Parquet, .npz) as it was before.
"""

from __future__ import annotations

import html
import json
import mmap
import os
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
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

_BATCH = 16_384
_PLAIN = {"PLAIN", "RLE", "BIT_PACKED", "RLE_DICTIONARY", "PLAIN_DICTIONARY"}


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


@dataclass
class Traces:
    """What to search for.

    Attributes:
        names: Of images.
        contents: sha256 of their contents.
        vectors: For each vector, its forms (d,) of any float type; one of them is the stored one.
        living: Names of other images that hold one of the names as a part (see `longer_names`).
    """

    names: Sequence[str]
    contents: Sequence[bytes]
    vectors: Sequence[Sequence[npt.NDArray[Any]]]
    living: Sequence[str] = ()

    def to_bytes(self) -> bytes:
        """As JSON, for the tasks that search."""
        forms = [[[one.dtype.str, one.tobytes().hex()] for one in some] for some in self.vectors]
        contents = [one.hex() for one in self.contents]
        return json.dumps([[*self.names], contents, forms, [*self.living]]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Traces:
        """The inverse of `to_bytes`."""
        names, contents, forms, living = json.loads(data)
        vectors = [
            [np.frombuffer(bytes.fromhex(one), dtype) for dtype, one in some] for some in forms
        ]
        return cls(names, [bytes.fromhex(one) for one in contents], vectors, living)


@dataclass(frozen=True)
class SearchTask:
    """Some files to search; paths are relative to the store.

    Attributes:
        number: Of the task.
        paths: Of the files.
        traces: File of what to search for.
        done: The record.
    """

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
    looking, found, shared = _Search(traces), set[Find](), set[int]()
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
    """The proof, of what was found in all files.

    Args:
        traces: What was searched for.
        entries: The files that were searched.
        records: From `search`, of all of them.
    """
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


def spellings(name: str) -> list[bytes]:
    """How a name may stand in a file: plain, escaped in JSON, in HTML, percent-encoded."""
    forms = [
        name,
        json.dumps(name)[1:-1],
        json.dumps(name, ensure_ascii=False)[1:-1],
        html.escape(name),
        html.escape(name, quote=False),
        quote(name, safe="/"),
        quote(name, safe="/:"),
        quote(name, safe="/ !$&'()*+,;=:@~"),
    ]
    return list(dict.fromkeys(form.encode("utf-8", "surrogateescape") for form in forms))


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


class _Search:
    """One search over many files."""

    def __init__(self, traces: Traces) -> None:
        self._short = [name for name in traces.names if len(os.fsencode(name)) < SHORTEST]
        known: list[tuple[bytes, str, str]] = []
        for name in traces.names:
            if name not in self._short:
                known += [(form, "name", name) for form in spellings(name)]
        for content in traces.contents:
            known += [
                (form, "content", content.hex()) for form in (content, content.hex().encode())
            ]
        for number, vectors in enumerate(traces.vectors):
            known += [(vector.tobytes(), "vector", str(number)) for vector in vectors]
        self._known = [one for one in known if len(one[0]) >= SHORTEST]  # a vector may be short
        self._patterns = Patterns([pattern for pattern, _, _ in self._known])
        self._excuses = _excuses(self._known, traces.living)

    def file(self, found: Path | BinaryIO, relative: str) -> Iterator[tuple[str, str]]:
        """Kind and description of everything found in one file, which may be open already."""
        yield from self.buffer(os.fsencode(relative))
        if isinstance(found, Path):
            if found.is_symlink():
                yield from self.buffer(os.fsencode(os.readlink(found)))
                return
            if not found.is_file():
                return
        with open(found, "rb") if isinstance(found, Path) else found as file:
            if os.fstat(file.fileno()).st_size:
                yield from self._contents(file)

    def _contents(self, file: BinaryIO) -> Iterator[tuple[str, str]]:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield from self.buffer(data)
            for name in self._short:  # a part of anything: it counts where it stands for itself
                if any(data.find(form % os.fsencode(name)) >= 0 for form in (b'"%s"', b">%s<")):
                    yield "name", name
            magic = data[:4]
        if magic == b"PAR1":
            yield from self._parquet(file)
        elif magic == b"PK\x03\x04":
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    yield from self.buffer(archive.read(name))

    def buffer(self, data: Any) -> Iterator[tuple[str, str]]:
        """What is found in bytes as they are."""
        for number, position in self._patterns.find(data):
            if not self._excused(number, position, data):
                yield self._known[number][1:]

    def _excused(self, number: int, position: int, data: Any) -> bool:
        """Is it a part of the name of another image?"""
        return any(
            offset <= position
            and bytes(data[position - offset : position - offset + length]) in names
            for (offset, length), names in self._excuses.get(number, {}).items()
        )

    def _parquet(self, raw: BinaryIO) -> Iterator[tuple[str, str]]:
        """Text and bytes decoded; other columns where their pages are not plain."""
        with pq.ParquetFile(raw) as file:
            columns = _columns_to_decode(file)
            if not columns or not file.num_row_groups:
                return
            for batch in file.iter_batches(_BATCH, columns=columns):
                for column in batch.columns:
                    yield from self._array(column)

    def _array(self, array: Any) -> Iterator[tuple[str, str]]:
        while pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
            array = array.flatten()
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_string(array.type) and self._short:
            there = array.filter(pc.is_in(array, pa.array(self._short, pa.string())))
            yield from (("name", name) for name in pc.unique(there).to_pylist())
        for buffer in array.buffers()[1:]:
            if buffer is not None and buffer.size:
                yield from self.buffer(buffer)


def _columns_to_decode(file: pq.ParquetFile) -> list[str]:
    """Columns of text and bytes, and those whose pages are compressed or otherwise encoded."""
    metadata, wanted = file.metadata, []
    for number in range(metadata.num_columns):
        column = metadata.schema.column(number)
        chunks = [metadata.row_group(i).column(number) for i in range(metadata.num_row_groups)]
        plain = all(
            chunk.compression == "UNCOMPRESSED" and _PLAIN.issuperset(chunk.encodings)
            for chunk in chunks
        )
        if not plain or column.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
            wanted.append(column.path)
    return wanted


def _excuses(
    known: Sequence[tuple[bytes, str, str]], living: Sequence[str]
) -> Mapping[int, dict[tuple[int, int], set[bytes]]]:
    """For each pattern of a name, where it lies in which spelling of a longer name that lives."""
    found: dict[int, dict[tuple[int, int], set[bytes]]] = {}
    names = Patterns([pattern for pattern, _, _ in known])
    for name in living:
        for spelt in spellings(name):
            for number, offset in names.find(spelt):
                place = found.setdefault(number, {}).setdefault((offset, len(spelt)), set())
                place.add(spelt)
    return found


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
