"""How like the real vectors the made ones are: what an index finds among either, side by side."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.index.generator import MOST_NEAR, Generator, neighbours, thinned
from benchmarks.index.way_exact import nearest, recall

Vectors = npt.NDArray[np.float32]

QUERIES, K, DEPTH = 1000, 10, 100
PROBES = (1, 2, 4, 8, 16, 32, 64)
DEPTHS = (10, 20, 50, 100, 200)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_TRAIN_PER_LIST = 40


def compare(real: Vectors, made: Generator, most: int = 100_000) -> dict[str, Any]:
    """Measure the real vectors, and as many made from a tenth of them with what was fitted.

    So what is shown is how the generator grows a set tenfold, against a set that grew by itself.

    Returns:
        `rows` and `from_rows`, and for "real" and "made" what `describe` returns.
    """
    real = real[: most + min(QUERIES, len(real) // 4)]
    rows = len(real) - min(QUERIES, len(real) // 4)
    tenth = thinned(real[:rows])
    grown = Generator(tenth, neighbours(tenth, MOST_NEAR), made.width, made.spread, made.seed)
    sets = {"real": real, "made": grown.rows(0, len(real))}
    found = {name: describe(vectors[:rows], vectors[rows:]) for name, vectors in sets.items()}
    return {"rows": rows, "from_rows": len(tenth), **found}


def describe(base: Vectors, queries: Vectors) -> dict[str, Any]:
    """What makes a set easy or hard to search.

    Returns:
        `probes`: recall@10 after exact re-ranking of 100 candidates, by lists probed; `codes`: how
        many of the true ten are among the first so many by codes of 32 bytes, all lists probed;
        `tenth`: quantiles of 1 - cosine to the tenth neighbour; `nth`: its median to the first,
        tenth and hundredth.
    """
    true, scores = nearest(queries, [base], min(DEPTH, len(base)))
    index = _index(base)
    index.nprobe = index.nlist
    found = index.search(queries[:, : index.d], max(DEPTHS))[1]
    codes = [recall(found[:, :depth], true[:, :K]) for depth in DEPTHS]
    probes = []
    for index.nprobe in PROBES:
        probes.append(recall(index.search(queries[:, : index.d], DEPTH)[1], true[:, :K]))
    away = 1 - scores
    return {
        "probes": dict(zip(PROBES, probes, strict=True)),
        "codes": dict(zip(DEPTHS, codes, strict=True)),
        "tenth": np.quantile(away[:, K - 1], QUANTILES).tolist(),
        "nth": np.median(away[:, [0, K - 1, away.shape[1] - 1]], axis=0).tolist(),
    }


def _index(base: Vectors) -> Any:
    """IVF-PQ of 32 bytes over the leading components, which PCA has made the largest."""
    parts = min(32, base.shape[1])
    dim = min(4, base.shape[1] // parts) * parts
    nlist = max(1, min(2 ** round(np.log2(4 * len(base) ** 0.5)), len(base) // _TRAIN_PER_LIST))
    leading = np.ascontiguousarray(base[:, :dim])
    index = faiss.index_factory(dim, f"IVF{nlist},PQ{parts}np", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = index.pq.cp.niter = 10
    index.pq.cp.min_points_per_centroid = 1  # small sets are no reason to talk
    index.train(leading[: _TRAIN_PER_LIST * nlist])
    index.add(leading)
    return index
