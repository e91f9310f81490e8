"""How vectors are coded, and why: product codes or scalar codes, and how long.

Codes can be short because candidates are scored again exactly. An error of the code costs some
more vectors to re-rank, whereas every byte of a code is held in memory and read for each vector
of each list that is scanned. So the usual code is a product code of 32 bytes, which has 64 parts
of 4 bits of a vector rotated to 128 dimensions; Faiss's FastScan compares such parts in registers.
Scalar codes (ivf_sq, a byte or two for each component) are chosen only where they are no longer
than that. With 512 dimensions they would take 16 times the memory, to avoid an error that
re-ranking corrects anyway.

How many lists to look into (`probes`) and candidates to re-rank (`depth`) are first guesses, which
the certificate replaces. The formulas fit measurements on 7,000 to 112,000 embeddings of crops of
photographs (MobileNetV2, 512 dimensions), for recall@10 of .90 to .995; beyond these sizes they are
extrapolations. Half of the loss that the target allows may come from lists that are not scanned,
and half from codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from lookalike.errors import RequestError
from lookalike.ivf.spec import ID_BYTES, IndexSpec
from lookalike.sizes import size_setting, size_text

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


LONG_CODE = 64  # bytes, where re-ranking after a short one would go too deep
CODE_BYTES = tuple(range(32, 0, -1))
NBITS = {"ivf_pq": (4, 8), "ivf_sq": (8, 16)}  # the first is the default
_COMPONENTS = {4: 2, 8: 4}  # of a rotated vector in each part


def automatic(n: int, spec: IndexSpec, memory: int, given: Mapping[str, Any]) -> IndexSpec:
    """Scalar codes where they are no longer than product codes would be."""
    scalar = replace(spec, kind="ivf_sq", nbits=8, code_bytes=spec.dim)
    short = spec.dim <= CODE_BYTES[0] and scalar.searcher_bytes(n) <= memory
    free = not ("code_bytes" in given or "nbits" in given)
    return replace(spec, kind="ivf_sq" if short and free else "ivf_pq")


def scalar_code(
    n: int, spec: IndexSpec, memory: int, given: Mapping[str, Any]
) -> tuple[IndexSpec, str]:
    """A byte for each component, or two (fp16) where asked for; and why.

    Raises:
        RequestError: The options do not go together, or the codes do not fit into memory.
    """
    nbits = _nbits(spec.kind, given)
    if "nbits" not in given and given.get("code_bytes") == 2 * spec.dim:
        nbits = 16
    spec = replace(spec, nbits=nbits, code_bytes=spec.dim * nbits // 8)
    asked = positive(given, "code_bytes", spec.code_bytes)
    if asked != spec.code_bytes:
        raise RequestError(
            f"index.code_bytes is {asked}, but scalar codes of {nbits} bits for {spec.dim:,} "
            f"components have {spec.code_bytes:,}; leave it out or set index.kind: ivf_pq"
        )
    _check_fits(n, spec, memory, "set index.kind: ivf_pq")
    return spec, f"codes: {spec.code_bytes:,} bytes, {nbits} bits for each component"


def product_code(
    n: int, spec: IndexSpec, available: int, memory: int, target: float, given: Mapping[str, Any]
) -> tuple[IndexSpec, str]:
    """The product code for n vectors, and why.

    Args:
        n: Vectors.
        spec: What is settled already: kind, dim, nlist.
        available: Vectors to train on.
        memory: Of a searching process, in bytes.
        target: Recall.
        given: `code_bytes` and `nbits`, where asked for.

    Raises:
        RequestError: The options are impossible, or no code fits into memory.
    """
    nbits = _nbits(spec.kind, given)
    most = min(spec.dim, available)  # components after the rotation
    if available < 1 << nbits:
        raise RequestError(
            f"index.nbits: {nbits} needs at least {1 << nbits} vectors to train on, there are "
            f"{available:,}; use index.nbits: {NBITS['ivf_pq'][0]}"
        )
    if most < 8 // nbits:
        raise RequestError(
            f"index.kind: ivf_pq needs vectors of at least {8 // nbits} dimensions, they have "
            f"{spec.dim}; use index.kind: ivf_sq or exact"
        )

    def with_code(code_bytes: int) -> IndexSpec:
        parts = code_bytes * 8 // nbits
        rotated = min(_COMPONENTS[nbits] * parts, most) // parts * parts
        return replace(spec, nbits=nbits, code_bytes=code_bytes, rotation_dim=rotated)

    if "code_bytes" in given:
        asked = positive(given, "code_bytes", 0)
        if asked * 8 // nbits > most:
            raise RequestError(
                f"index.code_bytes is {asked}, at most {most * nbits // 8} fit {spec.dim:,} "
                f"dimensions and {available:,} vectors to train on, in parts of {nbits} bits; "
                "lower it"
            )
        chosen, why = with_code(asked), "asked for"
        _check_fits(n, chosen, memory, "lower index.code_bytes")
    else:
        wanted, why = _wanted_code(n, target)
        all_lengths = [*map(with_code, filter(lambda one: one * 8 // nbits <= most, wanted))]
        possible = [one for one in all_lengths if _keeps_enough(one, most)] or all_lengths[-1:]
        fitting = [one for one in possible if one.searcher_bytes(n) <= memory]
        if not fitting:
            _check_fits(n, possible[-1], memory, "make several stores of them", possible[0])
        chosen = fitting[0]
        if chosen.code_bytes < wanted[0]:
            why = "as long as the dimension allows" if chosen == possible[0] else "as memory allows"
    deep = depth(n, chosen.code_bytes, target)
    if deep > DEEPEST:
        why += (
            f"; for recall {target:g} about {deep:,} vectors a query would have to be re-ranked, "
            f"and at most {DEEPEST:,} are: longer codes may be needed"
        )
    return chosen, (
        f"codes: {chosen.code_bytes} bytes, {chosen.subquantizers} parts of {nbits} bits, of "
        f"{chosen.rotation_dim} rotated components ({why})"
    )


def _wanted_code(n: int, target: float) -> tuple[tuple[int, ...], str]:
    """Lengths from the best to the shortest, and why the first is the best."""
    deep = depth(n, CODE_BYTES[0], target)
    if deep <= DEEPEST:
        return CODE_BYTES, "exact re-ranking makes up for what they lose"
    why = f"after {CODE_BYTES[0]} bytes about {deep:,} vectors a query would have to be re-ranked"
    return (LONG_CODE, *CODE_BYTES), why


def _keeps_enough(spec: IndexSpec, most: int) -> bool:
    """Dropping many components to make them divisible costs more than a shorter code."""
    per = _COMPONENTS[spec.nbits]
    return spec.rotation_dim >= min(per * spec.subquantizers, 0.75 * most)


def _check_fits(
    n: int, spec: IndexSpec, memory: int, remedy: str, better: IndexSpec | None = None
) -> None:
    held = spec.searcher_bytes(n)
    if held <= memory:
        return
    wanted = better or spec
    least = f" ({size_setting(held)} at the least)" if wanted != spec else ""
    raise RequestError(
        f"index.memory is {size_text(memory)}, but the ids of {n:,} vectors alone have "
        f"{size_text(n * ID_BYTES)}, and with {wanted.code_bytes:,}-byte codes and "
        f"{spec.nlist:,} centroids {size_text(wanted.searcher_bytes(n))}; raise index.memory to "
        f"{size_setting(wanted.searcher_bytes(n))}{least}, or {remedy}"
    )


def _nbits(kind: str, given: Mapping[str, Any]) -> int:
    nbits = positive(given, "nbits", NBITS[kind][0])
    if nbits not in NBITS[kind]:
        allowed = "; ".join(f"{one}: {' or '.join(map(str, bits))}" for one, bits in NBITS.items())
        raise RequestError(f"index.nbits is {nbits} for {kind}, but can be {allowed}")
    return nbits


def positive(options: Mapping[str, Any], name: str, default: int) -> int:
    """An option that is a whole number from 1, or its default.

    Raises:
        RequestError: It is something else.
    """
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError(f"index.{name} must be a whole number from 1, got {value!r}")
    return value
