"""Faiss's IVF-PQ as its wiki's guidelines have it, by the index factory.

Below ten million vectors that is as many lists as 4 sqrt(n), a flat coarse quantizer, OPQ before
PQ, and 64 vectors per list to train on; above, 65536 lists found by HNSW. (`np` leaves out the
polysemous training, which costs time and serves another kind of search.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.index.faiss_ways import INDEX_FILE, Plain

_TRAIN_PER_LIST = 64
_ADDED_AT_ONCE = 65_536


def recipe(rows: int, dim: int, code_bytes: int) -> tuple[str, int]:
    """The factory's key, and the number of lists."""
    nlist = 2 ** round(np.log2(4 * rows**0.5)) if rows < 10_000_000 else 65_536
    coarse = f"IVF{nlist}" if rows < 10_000_000 else f"IVF{nlist}_HNSW32"
    parts = min(code_bytes, dim)
    turned = min(4, dim // parts) * parts
    return f"OPQ{parts}_{turned},{coarse},PQ{parts}np", nlist


def build(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """Train on rows chosen at random, add all, write the file."""
    base = np.load(task["array"], mmap_mode="r")
    key, nlist = recipe(len(base), base.shape[1], task["code_bytes"])
    index = faiss.index_factory(base.shape[1], key, faiss.METRIC_INNER_PRODUCT)
    count = min(len(base), _TRAIN_PER_LIST * nlist)
    chosen = np.random.default_rng(task["seed"]).choice(len(base), count, replace=False)
    index.train(base[np.sort(chosen)])
    for start in range(0, len(base), _ADDED_AT_ONCE):
        index.add(np.ascontiguousarray(base[start : start + _ADDED_AT_ONCE]))
    faiss.write_index(index, str(out / INDEX_FILE))
    return {"key": key, "bytes": (out / INDEX_FILE).stat().st_size, "training_rows": count}


def serve(task: dict[str, Any], out: Path) -> Plain:
    """Open what was built."""
    return Plain(out / INDEX_FILE)
