"""A snapshot's index as one file that `faiss.read_index` opens, whatever wrote it being elsewhere.

The head of the file is what Faiss writes for the same index without entries; the entries follow as
it lays them out, read list by list from the mapped shards. So memory does not grow with them.

exact                 [normalise ->] IndexIDMap(IndexFlat)
ivf_sq, ivf_pq        [normalise ->] [rotate ->] IndexIVFScalarQuantizer or IndexIVFPQ

Codes of 4 bits are taken out of FastScan's blocks: its search adds the coarse quantizer's own score
to a list's, so that lists cannot be chosen by distance there while rows are scored by product, as
is done here (`lookalike.ivf.coarse`). IndexIVFPQ has no such bond, and finds the same candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import faiss as _faiss
import numpy as np

from lookalike.distances import Ids
from lookalike.errors import RequestError
from lookalike.ivf.shard_files import ShardFile, list_entries
from lookalike.ivf.trained_index import TrainedIndex
from lookalike.store.tombstones import among

faiss: Any = _faiss  # its own type stubs lack half of what is used here

_NO_LISTS = 32  # bytes at the end of an index without entries: kind, two sizes, kind, no sizes
_NO_ROWS = 16  # the same of IndexIDMap(IndexFlat): no vectors, no ids


def pieces(
    trained: TrainedIndex, files: Sequence[ShardFile], deleted: Ids, count: int, nprobe: int
) -> Iterator[bytes]:
    """The bytes of the file, in order.

    Args:
        trained: Of the index.
        files: Its shards, mapped.
        deleted: Ids (m,) of rows that are left out, ascending.
        count: Rows that there must be.
        nprobe: Lists that a search shall scan unless told otherwise.

    Raises:
        RequestError: Faiss has no such metric, or there are other rows.
    """
    spec = trained.spec
    if spec.metric == "jaccard":
        raise RequestError(
            "export: Faiss searches by no such metric as jaccard; take the vectors with --format "
            "parquet or npy"
        )
    sizes = np.zeros(spec.nlist, dtype=np.int64)
    for file in files:
        for number, _, ids in list_entries(file):
            sizes[number] += len(ids) - int(among(ids, deleted).sum())
    rows = int(sizes.sum())
    if rows != count:
        raise RequestError(
            f"export: the index holds {rows:,} living rows, the snapshot {count:,}; run: lookalike "
            "verify"
        )
    if spec.kind == "exact":
        yield _head(_flat(trained), rows, _NO_ROWS, b"")
        yield _size(rows * spec.dim)
        yield from _of_list(files, 0, deleted, codes=True)
        yield _size(rows)
        yield from _of_list(files, 0, deleted, codes=False)
        return
    yield _head(_lists(trained, nprobe), rows, _NO_LISTS, b"ilar")
    yield b"ilar" + _size(spec.nlist) + _size(trained.code_size) + b"full" + _size(spec.nlist)
    yield sizes.astype("<u8").tobytes()
    for number in range(spec.nlist):
        yield from _of_list(files, number, deleted, codes=True)
        yield from _of_list(files, number, deleted, codes=False)


def _of_list(
    files: Sequence[ShardFile], number: int, deleted: Ids, *, codes: bool
) -> Iterator[bytes]:
    """The codes of a list's living entries in all shards, or their ids."""
    for file in files:
        if not file.header.first_list <= number < file.header.last_list:
            continue
        for _, own, ids in list_entries(file, number):
            living = ~among(ids, deleted)
            part: Any = own() if codes else ids
            yield (part if living.all() else part[living]).tobytes()


def _flat(trained: TrainedIndex) -> Any:
    spec = trained.spec
    flat = faiss.IndexFlat(spec.dim, _metric(trained))
    return _prepared(trained, faiss.IndexIDMap(flat), [flat])


def _lists(trained: TrainedIndex, nprobe: int) -> Any:
    spec, codec = trained.spec, trained.scanner()
    dim, nlist = spec.rotation_dim, spec.nlist
    by_product = spec.metric == "inner_product"
    lists = faiss.IndexFlat(dim, faiss.METRIC_INNER_PRODUCT if by_product else faiss.METRIC_L2)
    lists.add(trained.centroids)
    if spec.kind == "ivf_sq":
        ivf = faiss.IndexIVFScalarQuantizer(lists, dim, nlist, codec.sq.qtype, _metric(trained))
        ivf.sq = codec.sq
    else:
        ivf = faiss.IndexIVFPQ(lists, dim, nlist, codec.pq.M, codec.pq.nbits, _metric(trained))
        ivf.pq = codec.pq
    ivf.by_residual = ivf.is_trained = True
    ivf.nprobe = nprobe
    return _prepared(trained, ivf, [lists])


def _metric(trained: TrainedIndex) -> int:
    """Scalar codes under cosine go by distance, which of unit vectors ranks as the cosine does.

    Faiss would score them by product only with lists that were chosen by product.
    """
    spec = trained.spec
    by_distance = spec.metric == "l2" or (spec.metric, spec.kind) == ("cosine", "ivf_sq")
    return int(faiss.METRIC_L2 if by_distance else faiss.METRIC_INNER_PRODUCT)


def _prepared(trained: TrainedIndex, index: Any, parts: list[Any]) -> Any:
    """The index behind what queries go through first."""
    spec, chain = trained.spec, []
    if spec.metric == "cosine":
        chain.append(faiss.NormalizationTransform(spec.dim, 2.0))
    if trained.rotation is not None:
        rotation = faiss.LinearTransform(spec.dim, spec.rotation_dim, False)
        faiss.copy_array_to_vector(trained.rotation.ravel(), rotation.A)
        rotation.is_trained = True
        chain.append(rotation)
    whole = faiss.IndexPreTransform(index) if chain else index
    for transform in reversed(chain):
        whole.prepend_transform(transform)
    kept = getattr(whole, "referenced_objects", [])  # which C++ does not own
    whole.referenced_objects = [*kept, trained, index, chain, parts]
    return whole


def _head(index: Any, rows: int, end: int, kind: bytes) -> bytes:
    """What Faiss writes of an index of so many rows, up to where they begin."""
    inner = [index]
    if isinstance(index, faiss.IndexPreTransform):
        inner.append(faiss.downcast_index(index.index))
    if isinstance(inner[-1], faiss.IndexIDMap):
        inner.append(faiss.downcast_index(inner[-1].index))
    plain = faiss.serialize_index(index).tobytes()
    if not plain[-end:].startswith(kind):
        raise RequestError(
            f"export: this version of Faiss ({faiss.__version__}) writes another format than is "
            "known here; use faiss-cpu 1.15"
        )
    for one in inner:
        one.ntotal = rows
    return bytes(faiss.serialize_index(index).tobytes()[:-end])


def _size(number: int) -> bytes:
    return int(number).to_bytes(8, "little")
