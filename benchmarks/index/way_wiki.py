"""Faiss's IVF-PQ as its wiki's guidelines have it, by the index factory.

Below ten million vectors that is as many lists as 4 sqrt(n), a flat coarse quantizer, OPQ before
PQ, and 64 vectors per list to train on; above, 65536 lists found by HNSW. (`np` leaves out the
polysemous training, which costs time and serves another kind of search.)
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import faiss
import numpy as np

INDEX_FILE = "index.faiss"
_NPROBE = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_EF = (16, 32, 64, 128, 256, 512)


class Plain:
    """An index read into memory, searched with each of its own search parameters."""

    def __init__(self, path: Path) -> None:
        self._index = faiss.read_index(str(path))
        self._space = faiss.ParameterSpace()
        self._space.initialize(self._index)
        self.settings = settings(self._index)

    def search(self, setting: dict[str, Any], queries: Any, k: int) -> Any:
        """Row numbers (n, k)."""
        for name, value in setting.items():
            self._space.set_index_parameter(self._index, name, value)
        return self._index.search(queries, k)[1]


def settings(index: Any) -> list[dict[str, Any]]:
    """Every sensible setting of an index's search parameters, by the names of ParameterSpace."""
    try:
        ivf = faiss.extract_index_ivf(index)
    except RuntimeError:
        ivf = None
    if ivf is None:
        hnsw = hasattr(faiss.downcast_index(index), "hnsw")
        return [{"efSearch": ef} for ef in _EF] if hnsw else [{}]
    probes = [nprobe for nprobe in _NPROBE if nprobe <= ivf.nlist // 2]
    if not hasattr(faiss.downcast_index(ivf.quantizer), "hnsw"):
        return [{"nprobe": nprobe} for nprobe in probes]
    return [
        {"nprobe": nprobe, "quantizer_efSearch": max(_EF[0], times * nprobe)}
        for nprobe, times in product(probes, (1, 4))
    ]


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
