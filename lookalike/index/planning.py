"""Which index, and why: from the number of vectors, their dimension and a memory budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lookalike.errors import RequestError
from lookalike.index.metrics import METRICS

KINDS = ("exact", "ivf_pq")
EXACT_BELOW = 10_000  # rows; below, scanning everything costs less than approximating
MIN_IVF_PQ_ROWS = 64
MIN_PER_CENTROID = 39  # Faiss's own lower limit for k-means that means something
HELD_OUT = 5  # at most one row in so many is a query, which training must not see
ROWS_PER_SHARD = 1_000_000
CODE_BYTES = (64, 48, 32, 24, 16, 8, 4, 2, 1)
DEFAULT_MEMORY = 4 << 30


@dataclass(frozen=True)
class IndexSpec:
    """Everything that decides what an index is, before any vector is seen.

    Attributes:
        kind: One of KINDS.
        dim: Components of a stored vector.
        metric: One of METRICS.
        nlist: Inverted lists.
        code_bytes: Sub-quantizers M; a code has M * nbits / 8 bytes (0 for exact).
        nbits: Bits of each sub-quantizer (0 for exact).
        rotation_dim: Components after the rotation, a multiple of code_bytes (dim for exact).
        seed: Of the sample and of every k-means.
        train_rows: Size of the uniform sample to train on (0 for exact).
        shards: Files of inverted lists to write.
        reason: Why this index, in one line.
    """

    kind: str
    dim: int
    metric: str
    nlist: int = 1
    code_bytes: int = 0
    nbits: int = 0
    rotation_dim: int = 0
    seed: int = 0
    train_rows: int = 0
    shards: int = 1
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As manifests and spec.json hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> IndexSpec:
        """The inverse of `to_json`; further keys (statistics) are left alone."""
        return cls(**{name: value[name] for name in cls.__dataclass_fields__ if name in value})


def plan(
    n: int, dim: int, metric: str, options: Mapping[str, Any] | None = None, *, files: int = 1
) -> IndexSpec:
    """Choose an index for n vectors.

    Exact below EXACT_BELOW rows, else IVF-PQ: nlist is the power of two nearest n / 3000 within
    [4 sqrt(n), 16 sqrt(n)], less where a centroid would have under 39 training rows; codes are the
    largest of CODE_BYTES that the memory (codes and ids) and the dimension allow; the rotation
    keeps at most 4 components per sub-quantizer; nbits is 8, less for tiny samples.

    Args:
        n: Vectors to index.
        dim: Their components.
        metric: One of METRICS.
        options: `kind`, `nlist`, `code_bytes`, `shards`, `memory` (bytes), `seed`;
            what is given wins, None and "auto" leave the choice here, further keys are ignored.
        files: Embedding files, the most shards that an automatic choice makes.

    Raises:
        RequestError: An option is impossible for these vectors.
    """
    given = {k: v for k, v in (options or {}).items() if v is not None and v != "auto"}
    kind = given.get("kind", "exact" if n < EXACT_BELOW else "ivf_pq")
    if metric not in METRICS:
        raise RequestError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if kind not in KINDS:
        raise RequestError(f"index.kind must be auto, exact or ivf_pq, got {kind!r}")
    shards = _positive(given, "shards", max(1, min(files, -(-n // ROWS_PER_SHARD))))
    seed = int(given.get("seed", 0))
    if kind == "ivf_pq":
        return _ivf_pq(n, dim, metric, given, shards, seed)
    for name in ("nlist", "code_bytes"):
        if name in given:
            raise RequestError(
                f"index.{name} is {given[name]!r}, but the index for {n:,} vectors is exact, "
                f"which has none; leave it out or set index.kind: ivf_pq"
            )
    reason = "asked for" if "kind" in given else f"{n:,} vectors are under {EXACT_BELOW:,}"
    return IndexSpec(
        kind, dim, metric, rotation_dim=dim, seed=seed, shards=shards, reason=f"exact: {reason}"
    )


def _ivf_pq(
    n: int, dim: int, metric: str, given: Mapping[str, Any], shards: int, seed: int
) -> IndexSpec:
    if n < MIN_IVF_PQ_ROWS:
        raise RequestError(
            f"index.kind: ivf_pq needs at least {MIN_IVF_PQ_ROWS} vectors to train on, there are "
            f"{n}; use index.kind: auto"
        )
    available = n - n // HELD_OUT  # to train on
    nlist = _positive(given, "nlist", _auto_nlist(n, available))
    if nlist > available:
        raise RequestError(
            f"index.nlist is {nlist:,}, more than the {available:,} vectors to train on; lower it"
        )
    memory = _positive(given, "memory", DEFAULT_MEMORY)
    # 64 rows per centroid, and enough for rotation and codes; never under 39 where they exist.
    sample_bound = max(memory // (8 * dim), MIN_PER_CENTROID * nlist, 1024)
    train_rows = min(available, max(64 * nlist, 65_536), sample_bound)
    code_bytes, why = _choose_code_bytes(n, dim, train_rows, memory, given)
    asked = " (asked for)" if "kind" in given else ""
    return IndexSpec(
        "ivf_pq",
        dim,
        metric,
        nlist,
        code_bytes,
        nbits=int(np.clip(np.floor(np.log2(train_rows / MIN_PER_CENTROID)), 4, 8)),
        rotation_dim=_rotation_dim(dim, code_bytes, train_rows),
        seed=seed,
        train_rows=train_rows,
        shards=shards,
        reason=f"ivf_pq: {n:,} vectors{asked}, {n / nlist:,.0f} per list; {why}",
    )


def _positive(options: Mapping[str, Any], name: str, default: int) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError(f"index.{name} must be a whole number from 1, got {value!r}")
    return value


def _auto_nlist(n: int, available: int) -> int:
    wanted = float(np.clip(n / 3000, 4 * n**0.5, 16 * n**0.5))
    most = max(1, available // MIN_PER_CENTROID)
    return int(2 ** min(round(np.log2(wanted)), int(np.log2(most))))


def _rotation_dim(dim: int, code_bytes: int, train_rows: int) -> int:
    """Largest multiple of the sub-quantizers up to 4 each, the dimension and the sample."""
    return min(4 * code_bytes, dim, train_rows) // code_bytes * code_bytes


def _choose_code_bytes(
    n: int, dim: int, train_rows: int, memory: int, options: Mapping[str, Any]
) -> tuple[int, str]:
    most = min(dim, train_rows)
    if "code_bytes" in options:
        code_bytes = _positive(options, "code_bytes", 0)
        if code_bytes > most:
            raise RequestError(
                f"index.code_bytes is {code_bytes}, at most {most} fit {dim}-dimensional vectors "
                f"and a sample of {train_rows:,}; lower it"
            )
        return code_bytes, f"{code_bytes} code bytes were asked for"
    budget = memory / n - 8  # an id has 8 bytes
    if budget < CODE_BYTES[-1]:
        raise RequestError(
            f"index.memory is {memory:,} bytes, but the ids of {n:,} vectors alone have "
            f"{8 * n:,}; raise index.memory to {n * 24:,} or more, or set index.code_bytes"
        )
    # Dropping many components to make them divisible costs more than a shorter code.
    code_bytes = next(
        one
        for one in CODE_BYTES
        if one <= min(budget, most)
        and _rotation_dim(dim, one, train_rows) >= min(4 * one, 0.75 * most)
    )
    return code_bytes, f"{code_bytes} code bytes fit {memory:,} bytes of memory"
