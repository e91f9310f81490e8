"""Which setting would raise a recall that is too low, according to its certificate."""

from __future__ import annotations

from lookalike.exact_neighbours import interval
from lookalike.ivf.spec import IndexSpec
from lookalike.store.manifest import Certificate

_WORTH_A_WORD = 0.001  # recall


def advise(certificate: Certificate, spec: IndexSpec, wanted: float | None = None) -> str:
    """What to change so that the lower bound of recall reaches what is wanted, in one sentence.

    Returns:
        "" where the bound is met.
    """
    low, recall, target = (float(certificate[key]) for key in ("low", "recall", "target"))
    wanted = target if wanted is None else wanted
    if low >= wanted:
        return ""
    if certificate["reached"]:
        return f"raise index.target_recall to {wanted:g} (now {target:g})"
    queries, population = int(certificate["queries"]), int(certificate["population"])
    if recall >= wanted and queries < population:
        enough = queries_needed(recall, wanted, population)
        return (
            f"recall itself is {recall:.3f}, {queries:,} queries are too few to be certain: raise "
            f"index.queries to {enough:,} (now {queries:,})"
        )
    losses = certificate["losses"]
    most = max(losses, key=lambda name: losses[name])
    share = f"{losses[most]:.3f} of the {1 - recall:.3f} that are lost"
    if most == "coarse_miss":
        return (
            f"coarse misses dominate ({share}): allow more than {certificate['nprobe']:,} of the "
            f"{spec.nlist:,} lists to be scanned, or lower index.nlist"
        )
    if most == "final":
        return (
            f"re-ranking loses neighbours that it was given ({share}), as if the stored vectors "
            "were not those of the exact neighbours: run lookalike verify, then index again"
        )
    return f"code errors dominate ({share}): {_finer_codes(spec)}{_deeper(certificate)}"


def queries_needed(recall: float, wanted: float, population: int) -> int:
    """How many queries make the lower bound of such a recall reach what is wanted."""
    few, enough = 0, population  # of every row: the bound is the recall itself
    while enough - few > 1:
        middle = (few + enough) // 2
        reached = interval(recall, middle, population)[0] >= wanted
        few, enough = (few, middle) if reached else (middle, enough)
    return enough


def _finer_codes(spec: IndexSpec) -> str:
    if spec.kind == "ivf_pq":
        most = spec.dim * spec.nbits // 8
        if spec.code_bytes < most:
            return (
                f"raise index.code_bytes to {min(2 * spec.code_bytes, most)} "
                f"(now {spec.code_bytes})"
            )
        return "set index.kind: ivf_sq"
    return "set index.kind: exact"


def _deeper(certificate: Certificate) -> str:
    """What the last doubling of the re-ranking depth brought, where it brought something."""
    nprobe, depth = certificate["nprobe"], certificate["rerank"]
    shallower = [
        row["recall"]
        for row in certificate["sweep"]
        if row["nprobe"] == nprobe and row["rerank"] <= depth / 2
    ]
    gain = certificate["recall"] - max(shallower, default=certificate["recall"])
    if gain < _WORTH_A_WORD:
        return ""
    return f"; the last doubling of the depth, to {depth:,}, brought {gain:.3f}"
