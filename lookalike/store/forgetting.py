"""Which rows, names and vectors a store holds of images that are to be forgotten.

An image is its content. To name one file therefore means all names of the same bytes, also those
in snapshots that are not published any more, and rows that are deleted but still in their files.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.csv_rows import read_csv
from lookalike.distances import Ids
from lookalike.errors import RequestError, one_line
from lookalike.store import snapshot
from lookalike.store.manifest import FileLine, Manifest
from lookalike.store.matching import matching_ids
from lookalike.store.objects import Store
from lookalike.store.storage import is_remote, uri_from_path
from lookalike.store.tombstones import tombstones_of
from lookalike.store.vector_reader import VectorReader

_BATCH = 65_536
_NONE: Ids = np.empty(0, dtype=np.int64)


@dataclass
class Held:
    """What a store holds of the images that are to be forgotten.

    Attributes:
        names: All their names, sorted.
        contents: sha256 of their contents, sorted.
        vectors: Their vectors (d,), as stored, a few of each where models changed.
        ids: Their rows in the published snapshot's shards, living or deleted, ascending.
        unknown: Names that were given and are in no file.
        unread: Names whose content nobody knows: not readable, or no image.
    """

    names: list[str] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    vectors: list[npt.NDArray[Any]] = field(default_factory=list)
    ids: Ids = field(default_factory=lambda: _NONE)
    unknown: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to forget."""
        return bool(self.names or self.contents)


# --- what is asked for ------------------------------------------------------------------------


def read_list(path: Path) -> list[str]:
    """The names in a file: one in a line, or the column `uri` of a CSV (.csv) or Parquet file.

    Raises:
        RequestError: It cannot be read, has no such column, or names nothing.
    """
    try:
        if path.suffix == ".parquet":
            names = [
                name for name in pq.read_table(path, columns=["uri"])["uri"].to_pylist() if name
            ]
        elif path.suffix == ".csv":
            names = _csv_names(path)
        else:
            names = _text_names(path)
    except KeyError as error:
        raise RequestError(f"--list {path}: has no column uri") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowException) as error:
        raise RequestError(f"--list {path}: cannot be read: {one_line(error)}") from error
    if not names:
        raise RequestError(f"--list {path}: names nothing; it needs one uri in a line")
    return names


def _text_names(path: Path) -> list[str]:
    """The lines of a text file; a path that is not UTF-8 as the ledger writes it."""
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    if "\0" in text:
        raise RequestError(f"--list {path}: is no text; it needs one uri in a line")
    names = []
    for line in filter(str.strip, text.split("\n")):
        name = os.fsencode(line.removesuffix("\r"))
        try:
            names.append(name.decode())
        except UnicodeDecodeError:
            names.append(uri_from_path(os.path.abspath(name)))
    return names


def _csv_names(path: Path) -> list[str]:
    """As a manifest is read: a row that a stray quote took away would not be forgotten."""
    with open(path, "rb") as file, closing(read_csv(file, f"--list {path}")) as rows:
        at = {name: i for i, name in enumerate(next(rows, []))}["uri"]
        return [row[at] for row in rows if row[at]]


def meanings(name: str) -> tuple[str, ...]:
    """What a name given may be in the ledger: itself, and where it is a path, the absolute one."""
    if is_remote(name) or name.startswith("file://") or "\0" in name:
        return (name,)
    absolute = uri_from_path(os.fsencode(os.path.abspath(name)))
    plain = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return tuple(dict.fromkeys((plain, absolute)))


# --- what there is ----------------------------------------------------------------------------


def find(store: Store, names: Sequence[str] = (), where: str | None = None) -> Held:
    """All that a store holds of some images.

    What a name stands for is decided by the published ledger; where it does not know the name,
    by any other file of a snapshot.

    Raises:
        RequestError: A manifest or a file cannot be read, or the condition is wrong.
    """
    published = snapshot.read_manifest(store)
    others = [
        snapshot.read_manifest(store, name)
        for name in snapshot.names(store)
        if name != published["name"]
    ]
    given = {meaning: name for name in names for meaning in meanings(name)}
    wanted = pa.array(list(given), pa.string())
    known: set[str] = set()
    contents: set[bytes] = set()
    for table in _ledger(store, [published]):
        _take(table.filter(pc.is_in(table["uri"], wanted)), known, contents)
    if where is not None:
        for table in _living_matches(store, published, where):
            _take(table, known, contents)
    missing = pa.array([name for name in given if name not in known], pa.string())
    if len(missing):
        for table in _everything(store, published, others):
            _take(table.filter(pc.is_in(table["uri"], missing)), known, contents)
    held = _all_of(store, published, others, known, contents)
    found = {given[name] for name in known if name in given}
    held.unknown = [name for name in dict.fromkeys(names) if name not in found]
    return held


def _take(table: pa.Table, names: set[str], contents: set[bytes]) -> None:
    names.update(table["uri"].to_pylist())
    contents.update(one for one in table["content_sha256"].to_pylist() if one is not None)


def _all_of(
    store: Store,
    published: Manifest,
    others: Sequence[Manifest],
    known: set[str],
    contents: set[bytes],
) -> Held:
    """Every name and row of contents, and every row of those names."""
    names, shas = set(known), pa.array(sorted(contents), pa.binary(32))
    read: set[str] = set()  # names with a content
    for table in _everything(store, published, others):
        same = table.filter(pc.is_in(table["content_sha256"], shas))
        names.update(same["uri"].to_pylist())
        read.update(same["uri"].to_pylist())
    uris = pa.array(sorted(names), pa.string())
    ids, vectors = [_NONE], {}
    numbers = {line["path"]: True for line in snapshot.files_of(published, "embedding")}
    for line in _lines((published, *others), "embedding"):
        for table in _batches(store, line["path"], ["id", "uri", "content_sha256"]):
            ours = pc.is_in(table["content_sha256"], shas)
            rows = table.filter(pc.or_kleene(pc.is_in(table["uri"], uris), ours))
            if line["path"] in numbers:
                ids.append(rows["id"].to_numpy())
            mine = table.filter(ours)["id"].to_numpy()
            if len(mine):
                reader = VectorReader(store, {int(line["file_no"]): line["path"]})
                for vector in reader.vectors(mine):
                    vectors[vector.tobytes()] = vector
    return Held(
        sorted(names),
        sorted(contents),
        list(vectors.values()),
        np.sort(np.concatenate(ids)),
        unread=sorted(names - read),
    )


def _living_matches(store: Store, published: Manifest, where: str) -> Iterator[pa.Table]:
    """Names and contents of the published rows that fulfil a condition."""
    files = {line["file_no"]: line["path"] for line in snapshot.files_of(published, "embedding")}
    ids = np.setdiff1d(matching_ids(store, files, where), tombstones_of(store, published))
    for number in np.unique(ids >> 32).tolist():
        matching = pa.array(ids[ids >> 32 == number])
        for table in _batches(store, files[number], ["id", "uri", "content_sha256"]):
            yield table.filter(pc.is_in(table["id"], matching))


def _everything(
    store: Store, published: Manifest, others: Sequence[Manifest]
) -> Iterator[pa.Table]:
    """Names and contents in ledgers and shards of all snapshots, deleted rows among them."""
    yield from _ledger(store, (published, *others))
    for line in _lines((published, *others), "embedding"):
        yield from _batches(store, line["path"], ["uri", "content_sha256"])


def _ledger(store: Store, manifests: Sequence[Manifest]) -> Iterator[pa.Table]:
    for line in _lines(manifests, "ledger"):
        yield from _batches(store, line["path"], ["uri", "content_sha256"])


def _lines(manifests: Sequence[Manifest], kind: str) -> Iterator[FileLine]:
    """Files of a kind, each once."""
    seen: set[str] = set()
    for manifest in manifests:
        for line in snapshot.files_of(manifest, kind):
            if line["path"] not in seen:
                seen.add(line["path"])
                yield line


def _batches(store: Store, path: str, columns: list[str]) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(store.parquet(path)) as file:
            if file.num_row_groups:
                for batch in file.iter_batches(_BATCH, columns=columns):
                    yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        raise RequestError(
            f"{store.shown(path)}: not readable: {one_line(error)}; run: lookalike verify"
        ) from error
