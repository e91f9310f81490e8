"""Exact search with all vectors in memory: a product and a selection, or Faiss's flat index."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Vectors

_SCORES = 1 << 25  # held at once
_STEP = 8192


def nearest(queries: Vectors, blocks: Iterable[Vectors], k: int) -> tuple[Ids, Vectors]:
    """Row numbers (n, k) int64 and inner products of the best k rows, best first.

    Args:
        queries: (n, d) float32.
        blocks: The rows to search, (m, d) float32 each, one after another.
        k: How many; at most as many as there are rows.
    """
    rows, scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    step, first = max(_STEP, _SCORES // max(1, len(queries))), 0
    for block in blocks:
        for start in range(0, len(block), step):
            part = block[start : start + step]
            found = queries @ part.T
            best = np.argpartition(-found, min(k, len(part)) - 1, axis=1)[:, :k]
            rows = np.concatenate([rows, best + (first + start)], axis=1)
            scores = np.concatenate([scores, np.take_along_axis(found, best, axis=1)], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            rows = np.take_along_axis(rows, order, axis=1)
            scores = np.take_along_axis(scores, order, axis=1)
        first += len(block)
    return rows, scores


def recall(found: npt.NDArray[Any], true: Ids) -> float:
    """Share of the true rows (n, k) that are among those found (n, any)."""
    hits = [len(np.intersect1d(one, other)) for one, other in zip(found, true, strict=True)]
    return float(np.sum(hits)) / true.size


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
