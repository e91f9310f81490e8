"""Exact search with all vectors in memory: a matrix product and a selection, or Faiss's flat index.

Where there are more rows than `exact_rows`, it searches only those, and says how many.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.index.exact import nearest


class Exact:
    """The vectors, searched in either way."""

    def __init__(self, base: Any) -> None:
        self.settings: list[dict[str, Any]] = [{"by": "numpy"}, {"by": "faiss"}]
        self._base = base
        self._flat = faiss.IndexFlatIP(base.shape[1])
        self._flat.add(base)

    def search(self, setting: dict[str, Any], queries: Any, k: int) -> Any:
        """Row numbers (n, k)."""
        if setting["by"] == "faiss":
            return self._flat.search(queries, k)[1]
        return nearest(queries, [self._base], k)[0]


def build(task: dict[str, Any], out: Path) -> dict[str, Any]:
    """There is nothing to build."""
    return {"key": "Flat", "bytes": 4 * task["dim"] * task["rows"]}


def serve(task: dict[str, Any], out: Path) -> Exact:
    """Read the vectors."""
    return Exact(np.load(task["array"]))
