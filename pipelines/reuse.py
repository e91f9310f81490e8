"""Whether the parent's trained index serves again, and what is planned for the rows of now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import hypot
from typing import Any

from lookalike.errors import RequestError
from lookalike.ivf.drawing import Drawn
from lookalike.ivf.encoding import fitness_of
from lookalike.ivf.fitness import MOST_ERROR, compare
from lookalike.ivf.planner import EXACT_BELOW, plan
from lookalike.ivf.spec import IndexSpec
from lookalike.ivf.tasks import MEASURED_ROWS
from lookalike.ivf.trained_index import TrainedIndex

_SETTLED = ("kind", "dim", "metric", "code_bytes", "nbits", "rotation_dim", "seed")
_UNDECIDED = (0.8, 1.25)  # times EXACT_BELOW, within which an index stays of the kind that it is
FIT_ROWS = 16  # per list, that a trained index is tried on
_NOTHING = 1e-6  # what float32 cannot tell from no error at all
_DRIFT_SHARE = 0.05  # of the rows trained on; fewer rows added tell little


def plan_next(
    rows: int, dim: int, metric: str, options: Mapping[str, Any], old: IndexSpec | None
) -> IndexSpec:
    """What to make of so many vectors, where `old` is what there is of those of the parent.

    About where the kind of an index changes it stays as it is: not every night another one.
    """
    low, high = (EXACT_BELOW * times for times in _UNDECIDED)
    free = options.get("kind") in (None, "auto")
    if old is not None and free and low <= rows <= high:
        try:
            kept = plan(rows, dim, metric, {**options, "kind": old.kind})
            why = (reason.replace(", as asked for", ", as it was") for reason in kept.reasons)
            return replace(kept, reasons=tuple(why))
        except RequestError:  # an exact one may no longer fit into memory
            pass
    return plan(rows, dim, metric, options)


def differs(old: IndexSpec, planned: IndexSpec, options: Mapping[str, Any]) -> str:
    """Why a trained index of one spec cannot serve where the other is planned; "" if it can."""
    for name in _SETTLED:
        before, after = getattr(old, name), getattr(planned, name)
        if before != after:
            return f"its {name} is {before}, planned is {after}"
    fixed = options.get("nlist") not in (None, "auto")
    low, high = (1, 1) if fixed else (0.5, 2)
    if not low * planned.nlist <= old.nlist <= high * planned.nlist:
        return f"it has {old.nlist:,} lists, planned are {planned.nlist:,}"
    return ""


def drift(
    index: Mapping[str, Any], trained: TrainedIndex, new: int, sample: Drawn
) -> dict[str, Any]:
    """What codes lose of the vectors added since training, those of this run included.

    That is held against what they lost of rows held out from training, not of those trained on, to
    which a trained index fits better than to any other.

    Args:
        index: The parent's manifest["index"].
        trained: Its trained index.
        new: Rows that this run adds.
        sample: Of them.

    Returns:
        `rows` added since training, their mean `error` and its `standard_error`, `error_ratio` to
        that of rows held out, and whether that is too much (`drifted`), by more than chance.
    """
    before = index.get("drift") or {"rows": 0, "error": 0.0, "standard_error": 0.0}
    rows, error, spread = int(before["rows"]), before["error"], before["standard_error"]
    if new:
        found = fitness_of(trained, sample, MEASURED_ROWS)
        share = new / (rows + new)
        error = (1 - share) * error + share * found.measures()["quantisation_error"]
        spread = hypot((1 - share) * spread, share * found.standard_error())
        rows += new
    training = index["training"]
    usual = max(training["held_out_error"], _NOTHING)
    chance = 2 * hypot(spread, training["held_out_standard_error"]) / usual
    ratio = round(max(error, _NOTHING) / usual, 4) if rows else 1.0
    enough = rows >= _DRIFT_SHARE * int(training["rows"])
    return {
        "rows": rows,
        "error": error,
        "standard_error": spread,
        "error_ratio": ratio,
        "drifted": bool(enough and ratio > MOST_ERROR + chance),
    }


def misfit(training: Mapping[str, Any], trained: TrainedIndex, sample: Drawn) -> tuple[bool, str]:
    """Whether a trained index still fits, on a sample of all living rows, and how well."""
    found = compare(training, fitness_of(trained, sample, len(sample)).measures())
    word = "serves again" if found["fits"] else "no longer fits"
    return found["fits"], (
        f"{word}: on all vectors its error is {found['error_ratio']:.2f} times, its imbalance "
        f"{found['imbalance_ratio']:.2f} times that of its training"
    )
