"""What the ways that are made of Faiss's own indexes share; runs with old releases of Faiss too."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import faiss

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
