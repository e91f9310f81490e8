"""Index shards: encoded vectors in inverted lists, one file each, for one template.

A shard file is one 4,096-byte block (a line of JSON, padded with spaces), then Faiss's own `ilar`
inverted lists, read by mmap. Files are trusted only after the caller has checked their sha256:
Faiss's format has no checksum.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.index.metrics import Ids, Scores, Vectors, check_vectors
from lookalike.index.template import Template

faiss: Any = _faiss  # its own type stubs lack half of what is used here

_HEADER_BYTES = 4096
_FORMAT = "lookalike-index-shard"
_VERSION = 1
_LISTS = b"ilar"  # lists that hold their own data; other kinds name further files to open


@dataclass(frozen=True)
class ShardHeader:
    """First block of a shard file.

    Attributes:
        template: sha256 of the template that made it.
        rows: Vectors in it.
        min_id: Smallest id (-1 when empty).
        max_id: Largest id (-1 when empty).
        nlist: Lists.
        code_size: Bytes of a code.
    """

    template: str
    rows: int
    min_id: int
    max_id: int
    nlist: int
    code_size: int


def encode_shard(
    template: Template,
    blocks: Iterable[tuple[Ids, npt.ArrayLike]],
    write: Callable[[bytes], object],
) -> ShardHeader:
    """Encode blocks of (ids (n,), vectors (n, dim)) as one shard.

    The caller's `write` gets the bytes and does what Faiss's own writer does not: hash, fsync,
    report a full disk. What it raises comes out of here unchanged.

    Raises:
        RequestError: A vector cannot be indexed (see `check_vectors`), or an id comes twice.
    """
    spec = template.spec
    shard = template.empty()
    seen = [np.empty(0, dtype=np.int64)]
    for ids, vectors in blocks:
        ids = np.ascontiguousarray(ids, dtype=np.int64)
        checked = check_vectors(vectors, spec.dim, spec.metric)
        if len(ids) != len(checked):
            raise RequestError(f"a block has {len(ids)} ids and {len(checked)} vectors")
        if len(ids):
            shard.add_with_ids(template.prepare(checked), ids)
            seen.append(ids)
    everything = np.sort(np.concatenate(seen))
    repeated = everything[1:][np.diff(everything) == 0]
    if len(repeated):
        raise RequestError(f"id {repeated[0]} comes more than once in a shard")
    rows = len(everything)
    # Faiss counts vectors that it then leaves out of its lists: never publish such a shard.
    stored = int(shard.invlists.compute_ntotal())
    assert stored == rows == shard.ntotal, f"{rows} rows, {stored} in the lists"
    first, last = (int(everything[0]), int(everything[-1])) if rows else (-1, -1)
    header = ShardHeader(template.sha256, rows, first, last, spec.nlist, template.code_size)
    described = {"format": _FORMAT, "version": _VERSION, **asdict(header)}
    write(json.dumps(described, sort_keys=True).encode().ljust(_HEADER_BYTES - 1) + b"\n")
    _write_lists(shard.invlists, write)
    return header


def _write_lists(lists: Any, write: Callable[[bytes], object]) -> None:
    failures: list[BaseException] = []

    def forward(data: Any) -> None:
        try:
            if not failures:
                write(bytes(data))
        except BaseException as error:  # Faiss would turn it into text; kept to be raised below
            failures.append(error)

    faiss.write_InvertedLists(lists, faiss.PyCallbackIOWriter(forward))
    if failures:
        raise failures[0]


class Shard:
    """Inverted lists of one file, mapped into memory; threads may share one."""

    def __init__(self, header: ShardHeader, ivf: Any) -> None:
        """See `read_shard`."""
        self.header, self._ivf = header, ivf

    def search(
        self, prepared: Vectors, k: int, distances: Vectors, lists: Ids
    ) -> tuple[Ids, Scores]:
        """Scan the lists chosen by `Template.coarse`.

        Returns:
            Ids (n, k), best first, -1 where there is nothing, and scores (n, k): inner products, or
            squared distances for l2.
        """
        n, nprobe = lists.shape
        scores = np.empty((n, k), dtype=np.float32)
        ids = np.empty((n, k), dtype=np.int64)
        # The wrapper reads nprobe from the shared object; the C++ call takes it as an argument.
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)
        prepared = np.ascontiguousarray(prepared)
        lists, distances = np.ascontiguousarray(lists), np.ascontiguousarray(distances)
        pointer = faiss.swig_ptr
        self._ivf.search_preassigned_c(
            n, pointer(prepared), k, pointer(lists), pointer(distances),
            pointer(scores), pointer(ids), False, parameters,
        )  # fmt: skip
        return ids, scores


def read_header(path: Path) -> ShardHeader:
    """The header of a shard file.

    Raises:
        RequestError: It is no shard file of this version.
    """
    try:
        with open(path, "rb") as file:
            block, kind = file.read(_HEADER_BYTES), file.read(len(_LISTS))
    except OSError as error:
        raise RequestError(f"{path}: the index shard cannot be read: {error.strerror}") from error
    try:
        described = json.loads(block)
        found = (described.pop("format"), described.pop("version"), len(block), kind)
        if found != (_FORMAT, _VERSION, _HEADER_BYTES, _LISTS):
            raise ValueError("format {!r}, version {!r}, {} bytes, {!r}".format(*found))
        return ShardHeader(**described)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{path}: not an index shard of version {_VERSION}: {error}; run: lookalike verify"
        ) from error


def read_shard(path: Path, template: Template) -> Shard:
    """Map a shard into memory, for searching with its template.

    Raises:
        RequestError: It is damaged, or was made with another template.
    """
    header = read_header(path)
    if header.template != template.sha256:
        raise RequestError(
            f"{path}: the shard was made with template {header.template}, the template here is "
            f"{template.sha256}; their codes mean different vectors: index again"
        )
    try:
        reader = faiss.FileIOReader(str(path))
        skipped = np.empty(_HEADER_BYTES, dtype=np.uint8)
        reader(faiss.swig_ptr(skipped), 1, _HEADER_BYTES)
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        # An empty file of lists has nothing to map.
        lists = faiss.read_InvertedLists(reader, flags if header.rows else 0)
    except RuntimeError as error:
        words = " ".join(str(error).split())
        raise RequestError(f"{path}: damaged: {words}; run: lookalike verify") from error
    found = (int(lists.compute_ntotal()), int(lists.nlist), int(lists.code_size))
    wanted = (header.rows, template.spec.nlist, template.code_size)
    if found != wanted:
        raise RequestError(
            f"{path}: damaged: rows, lists and code bytes are {found}, its header and template say "
            f"{wanted}; run: lookalike verify"
        )
    ivf = template.empty()
    lists.this.disown()
    ivf.replace_invlists(lists, True)
    ivf.ntotal = header.rows
    return Shard(header, ivf)
