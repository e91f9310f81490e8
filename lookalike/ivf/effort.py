"""How much searching a recall is likely to take: first guesses, which the certificate replaces.

The formulas fit measurements on 7,000 to 112,000 embeddings of photographs (MobileNetV2 on crops,
512 dimensions), for recall@10 of .90 to .995; beyond these sizes they are extrapolations. Half of
the loss that the target allows may come from lists that are not scanned, and half from codes.
"""

from __future__ import annotations

from math import ceil

DEEPEST = 1000  # candidates a query: what is still read in a few milliseconds
_LEAST_LOSS = 0.001
_MEASURED_ROWS = 112_000


def probes(nlist: int, target: float) -> int:
    """Lists to look into, of nlist, for the target recall."""
    wanted: float = 22 * (0.025 / _half_loss(target)) ** 0.75 * (nlist / 1024) ** 0.2
    return min(nlist, max(1, ceil(wanted)))


def depth(n: int, code_bytes: int, target: float) -> int:
    """Candidates to score exactly, of n vectors coded in 4-bit parts, for the target recall.

    With 32 bytes the depth grew as n^.3, with 64 as n^.18: the error of a long code is small even
    beside the shorter distances of more vectors.
    """
    shortness = (32 / code_bytes) ** 1.27
    growth = min(1.0, 0.3 * (32 / code_bytes) ** 0.7)
    wanted: float = 75 * shortness * (0.05 / _half_loss(target)) ** 0.6
    wanted *= (max(n, 1) / _MEASURED_ROWS) ** growth
    return min(n, max(10, 10 * ceil(wanted / 10)))


def _half_loss(target: float) -> float:
    return max(1 - target, _LEAST_LOSS) / 2
