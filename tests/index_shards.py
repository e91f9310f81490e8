"""Index shards made in memory, as small stores of tests have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lookalike.distances import check_vectors
from lookalike.ivf.encoding import Encoded
from lookalike.ivf.shard_files import Write
from lookalike.ivf.trained_index import TrainedIndex
from lookalike.store.index_header import ShardHeader


def encode_shard(
    trained: TrainedIndex, blocks: Iterable[tuple[Any, Any]], write: Write
) -> ShardHeader:
    """Encode blocks of (ids (n,), vectors (n, dim)) as one finished shard."""
    spec = trained.spec
    kept = [
        (np.asarray(ids, dtype=np.int64), check_vectors(vectors, spec.dim, spec.metric))
        for ids, vectors in blocks
    ]
    encoded = Encoded(trained, sum(len(ids) for ids, _ in kept))
    for ids, vectors in kept:
        encoded.add(ids, vectors)
    return encoded.write(True, write)
