"""What an index is, before any vector is seen: the planner's answer, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("exact", "ivf_sq", "ivf_pq")
ID_BYTES = 8
_BLOCK = 32  # codes that 4-bit lists are padded to


@dataclass(frozen=True)
class IndexSpec:
    """Everything that decides what an index is.

    Attributes:
        kind: One of KINDS.
        dim: Components of a stored vector.
        metric: One of METRICS.
        nlist: Inverted lists.
        code_bytes: Bytes of a stored code, without its id (0 for exact, which stores vectors).
        nbits: Bits of each sub-quantizer (ivf_pq) or component (ivf_sq); 0 for exact.
        rotation_dim: Components after the rotation, a multiple of `subquantizers` for ivf_pq;
            dim for the other kinds, which do not rotate.
        seed: Of the sample and of every k-means.
        train_rows: Size of the uniform sample to train on (0 for exact).
        part_rows: Rows that one encode task takes, about.
        shards: Files of inverted lists in the finished index, each a range of lists.
        rerank: Candidates to score exactly until the certificate chooses; 0 leaves it open.
        reasons: Why it is so, a line per choice.
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
    part_rows: int = 0
    shards: int = 1
    rerank: int = 0
    reasons: tuple[str, ...] = ()

    @property
    def subquantizers(self) -> int:
        """M of the product quantizer; 0 where there is none."""
        return self.code_bytes * 8 // self.nbits if self.kind == "ivf_pq" else 0

    def trained_bytes(self) -> int:
        """Centroids, rotation and codebooks, in memory or in the trained index's file."""
        if self.kind == "exact":
            return 4 * self.dim
        codebooks = 2 * self.dim
        if self.kind == "ivf_pq":
            codebooks = (self.dim + (1 << self.nbits)) * self.rotation_dim
        return 4 * (self.nlist * self.rotation_dim + codebooks)

    def lists_bytes(self, n: int) -> int:
        """Codes and ids of n vectors, as the index's files hold them, without headers."""
        if self.kind == "exact":
            return n * (4 * self.dim + ID_BYTES)
        padding = self.nlist * _BLOCK // 2 if self.kind == "ivf_pq" and self.nbits == 4 else 0
        return n * ID_BYTES + (n + min(padding, _BLOCK * n)) * self.code_bytes

    def searcher_bytes(self, n: int) -> int:
        """What a process that searches n vectors holds, all lists being in memory."""
        return self.trained_bytes() + self.lists_bytes(n)

    def to_json(self) -> dict[str, Any]:
        """As manifests and spec.json hold it."""
        return {**asdict(self), "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> IndexSpec:
        """The inverse of `to_json`; further keys (statistics) are left alone."""
        known = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
        return cls(**{**known, "reasons": tuple(known.get("reasons", ()))})
