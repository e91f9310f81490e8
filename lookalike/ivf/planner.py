"""Which index, and why: from the number of vectors, their dimension and a memory budget.

Below EXACT_BELOW vectors, a query is compared with all of them. Above, the index is an inverted
file (IVF): each vector lies in the list of its nearest centroid, a query scans the codes of a few
lists, and the best candidates are scored again with the stored vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, floor, log2, sqrt
from typing import Any

from lookalike.distances import METRICS
from lookalike.errors import RequestError
from lookalike.ivf.coarse import FLAT_BELOW
from lookalike.ivf.codes import (
    DEEPEST,
    automatic,
    depth,
    positive,
    probes,
    product_code,
    scalar_code,
)
from lookalike.ivf.spec import KINDS, IndexSpec
from lookalike.sizes import size_setting, size_text

EXACT_BELOW = 10_000  # rows; below, scanning everything costs less than approximating
MIN_IVF_ROWS = 64
MIN_PER_LIST = 39  # training rows; Faiss's own lower limit for k-means that means something
PER_LIST = 64  # training rows, as a rule
MIN_TRAIN_ROWS = 65_536  # for rotation and codes, where there are as many
HELD_OUT = 5  # at most one row in so many is a query, which training must not see
ROWS_PER_LIST = 3000  # shorter lists take longer to set up for than to scan
ROWS_PER_SHARD = 16_000_000
MIN_PART_ROWS = 131_072
MOST_PARTS = 4096
DEFAULT_MEMORY = 4 << 30
DEFAULT_TARGET = 0.95


def plan(n: int, dim: int, metric: str, options: Mapping[str, Any] | None = None) -> IndexSpec:
    """Choose an index for n vectors.

    The number of lists is the power of two nearest n / 3000 within [4 sqrt(n), 16 sqrt(n)], less
    where a list would have under 39 training rows. Codes are as long as memory and dimension
    allow, up to 32 bytes, or 64 where re-ranking would have to go deeper than 1,000 candidates to
    meet the target. Of the vectors, the plan depends on their number and dimension alone.

    Args:
        n: Vectors to index.
        dim: Their components.
        metric: One of METRICS.
        options: `kind`, `nlist`, `code_bytes`, `nbits`, `shards`, `memory` (bytes that a searching
            process may hold: codes, ids and centroids), `target_recall`, `seed`; what is given
            wins, None and "auto" leave the choice here, further keys are ignored.

    Raises:
        RequestError: An option is impossible for these vectors, or they do not fit into memory.
    """
    given = {k: v for k, v in (options or {}).items() if v is not None and v != "auto"}
    if metric not in METRICS:
        raise RequestError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if given.get("kind", "exact") not in KINDS:
        raise RequestError(f"index.kind must be auto, {', '.join(KINDS)}, got {given['kind']!r}")
    memory = positive(given, "memory", DEFAULT_MEMORY)
    exact = IndexSpec("exact", dim, metric, rotation_dim=dim, seed=int(given.get("seed", 0)))
    kind = given.get("kind") or _kind(n, exact.searcher_bytes(n), memory)
    if kind == "exact":
        spec = _exact(n, exact, memory, given)
    else:
        spec = _ivf(n, replace(exact, kind=kind), memory, given)
    return _with_files(n, spec, given)


def _kind(n: int, exact_bytes: int, memory: int) -> str:
    if n < EXACT_BELOW and (exact_bytes <= memory or n < MIN_IVF_ROWS):
        return "exact"
    return "auto"  # the dimension decides


def _exact(n: int, spec: IndexSpec, memory: int, given: Mapping[str, Any]) -> IndexSpec:
    for name in ("nlist", "code_bytes", "nbits"):
        if name in given:
            raise RequestError(
                f"index.{name} is {given[name]!r}, but the index for {n:,} vectors is exact, "
                "which has none; leave it out or set index.kind: ivf_pq"
            )
    held = spec.searcher_bytes(n)
    if held > memory:
        raise RequestError(
            f"index.memory is {size_text(memory)}, but an exact index of {n:,} vectors of "
            f"{spec.dim:,} dimensions holds {size_text(held)}; raise index.memory to "
            f"{size_setting(held)}, or set index.kind: auto"
        )
    why = (
        "asked for"
        if "kind" in given
        else f"{n:,} vectors are under {EXACT_BELOW:,}, where a scan of all is fast, and exact"
    )
    return replace(
        spec, reasons=(f"exact: {why}; {size_text(held)} of {size_text(memory)} of memory",)
    )


def _ivf(n: int, spec: IndexSpec, memory: int, given: Mapping[str, Any]) -> IndexSpec:
    if n < MIN_IVF_ROWS:
        raise RequestError(
            f"index.kind: {spec.kind} needs at least {MIN_IVF_ROWS} vectors to train on, there are "
            f"{n}; use index.kind: auto"
        )
    target = _target(given)
    available = n - n // HELD_OUT  # to train on
    spec, why_lists = _with_lists(n, spec, available, given)
    if spec.kind == "auto":
        spec = automatic(n, spec, memory, given)
    if spec.kind == "ivf_sq":
        spec, why_code = scalar_code(n, spec, memory, given)
        rerank = 20  # a byte for each component errs little
    else:
        spec, why_code = product_code(n, spec, available, memory, target, given)
        rerank = min(DEEPEST, depth(n, spec.code_bytes, target))
    spec, why_training = _with_training(spec, available, memory)
    asked = ", as asked for" if "kind" in given else ""
    size = f"{size_text(spec.searcher_bytes(n))} of {size_text(memory)} of memory"
    looked_into = probes(spec.nlist, target)
    return replace(
        spec,
        rerank=min(n, rerank),
        reasons=(
            f"{spec.kind}{asked}: {n:,} vectors of {spec.dim:,} dimensions; {size}",
            why_lists,
            why_code,
            why_training,
            f"search: about {looked_into:,} of {spec.nlist:,} lists and {rerank:,} re-ranked "
            f"vectors a query for recall {target:g}; the certificate measures and chooses",
        ),
    )


def _with_lists(
    n: int, spec: IndexSpec, available: int, given: Mapping[str, Any]
) -> tuple[IndexSpec, str]:
    if "nlist" in given:
        nlist = positive(given, "nlist", 0)
        if nlist > available:
            raise RequestError(
                f"index.nlist is {nlist:,}, more than the {available:,} vectors to train on; "
                "lower it"
            )
        why = "asked for"
        if available < MIN_PER_LIST * nlist:
            why += f", though fewer than {MIN_PER_LIST} vectors each to train on"
    else:
        low, high = ceil(log2(4 * sqrt(n))), floor(log2(16 * sqrt(n)))
        wanted = round(log2(n / ROWS_PER_LIST))
        most = floor(log2(max(1, available // MIN_PER_LIST)))
        nlist = 1 << min(max(wanted, low), high, most)
        if nlist == 1 << most and most < low:
            why = f"at least {MIN_PER_LIST} vectors each to train on"
        elif wanted < low:
            why = f"at least 4 sqrt(n) = {4 * sqrt(n):,.0f}"
        elif wanted > high:
            why = f"at most 16 sqrt(n) = {16 * sqrt(n):,.0f}"
        else:
            why = f"about {ROWS_PER_LIST:,} vectors each"
    assigned = "directly" if nlist < FLAT_BELOW else "through groups of centroids"
    return (
        replace(spec, nlist=nlist),
        f"lists: {nlist:,} ({why}), {n / nlist:,.0f} vectors each on average; assigned {assigned}",
    )


def _with_training(spec: IndexSpec, available: int, memory: int) -> tuple[IndexSpec, str]:
    wanted = max(PER_LIST * spec.nlist, MIN_TRAIN_ROWS)
    held = max(memory // (4 * spec.rotation_dim), MIN_PER_LIST * spec.nlist)
    rows = min(wanted, available, held)
    why = f"{rows / spec.nlist:,.0f} for each list"
    if rows == available:
        why += ", all but the queries"
    elif rows == held:
        why += f": what {size_text(memory)} of memory can hold"
    return replace(spec, train_rows=rows), f"training: a sample of {rows:,} vectors, {why}"


def _with_files(n: int, spec: IndexSpec, given: Mapping[str, Any]) -> IndexSpec:
    part_rows = max(MIN_PART_ROWS, ceil(n / MOST_PARTS))
    shards = positive(given, "shards", min(spec.nlist, max(1, ceil(n / ROWS_PER_SHARD))))
    if shards > spec.nlist:
        raise RequestError(
            f"index.shards is {shards:,}, more than the {spec.nlist:,} lists that they share; "
            "lower it"
        )
    spec = replace(spec, part_rows=part_rows, shards=shards)
    if spec.kind == "exact":  # one list is in one file, whatever the number of vectors
        return spec
    why = "asked for" if "shards" in given else f"one for every {ROWS_PER_SHARD:,} vectors"
    parts = max(1, ceil(n / part_rows))
    tasks = "1 task" if parts == 1 else f"{parts:,} tasks of about {part_rows:,} vectors"
    why = f"files of the index: {shards:,} ({why}); encoded in {tasks}"
    return replace(spec, reasons=(*spec.reasons, why))


def _target(given: Mapping[str, Any]) -> float:
    target = given.get("target_recall", DEFAULT_TARGET)
    if isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target <= 1:
        raise RequestError(f"index.target_recall must be above 0 and at most 1, got {target!r}")
    return float(target)
