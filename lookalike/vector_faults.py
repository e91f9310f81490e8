"""What can be wrong with a row of a table of vectors, decided for a whole batch at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.distances import about_length, too_long

REASONS = (
    "",
    "null_uri",
    "duplicate_uri",
    "null_vector",
    "wrong_dimension",
    "not_finite",
    "zero_vector",
    "negative",
    "unreadable",
    "too_long",
)
"""Why a row has no vector in the store; the first that applies, "" for none."""

(
    _,
    NULL_URI,
    DUPLICATE_URI,
    NULL_VECTOR,
    WRONG_DIMENSION,
    NOT_FINITE,
    ZERO_VECTOR,
    NEGATIVE,
    UNREADABLE_ROW,
    TOO_LONG,
) = range(len(REASONS))


@dataclass(frozen=True)
class Rules:
    """What the vectors of a store must be.

    Attributes:
        dim: Components.
        metric: cosine and jaccard forbid zero vectors, jaccard negative components too, l2 and
            inner_product those longer than `distances.LONGEST`.
        dtype: They are stored as: float32 or float16.
    """

    dim: int
    metric: str
    dtype: str = "float32"


@dataclass(frozen=True)
class Judged:
    """A batch of n rows, m of them sound.

    Attributes:
        faults: Index into `REASONS` for each row, (n,) uint8.
        vectors: Of the sound rows in their order, as they are to be stored, (m, dim).
        details: What is wrong, by row of the batch.
    """

    faults: npt.NDArray[np.uint8]
    vectors: npt.NDArray[Any]
    details: Mapping[int, str]

    @property
    def sound(self) -> npt.NDArray[np.bool_]:
        """Which rows are, (n,)."""
        return np.asarray(self.faults == 0)

    def counts(self) -> Counter[str]:
        """Rows by reason; "" is the sound ones."""
        found = np.bincount(self.faults, minlength=len(REASONS)).tolist()
        return Counter({name: n for name, n in zip(REASONS, found, strict=True) if n})


def judge(
    batch: pa.RecordBatch,
    numbers: npt.NDArray[np.int64],
    rules: Rules,
    repeats: npt.NDArray[np.bool_] | None = None,
) -> Judged:
    """Which rows of a batch may come into the store, and why not the others.

    Args:
        batch: With the columns uri (string) and embedding (a list of floats).
        numbers: Of its rows in the table, (n,).
        rules: What vectors must be.
        repeats: Whether an earlier row bears the uri of each row, (n,); None where none does.
    """
    lengths = pc.fill_null(pc.list_value_length(batch["embedding"]), -1)
    lengths = lengths.to_numpy(zero_copy_only=False)
    faults = np.zeros(batch.num_rows, dtype=np.uint8)
    faults[lengths != rules.dim] = WRONG_DIMENSION
    faults[lengths < 0] = NULL_VECTOR
    if repeats is not None:
        faults[repeats] = DUPLICATE_URI
    nameless = pc.fill_null(pc.equal(pc.binary_length(batch["uri"]), 0), True)
    faults[nameless.to_numpy(zero_copy_only=False)] = NULL_URI

    given = _components(batch["embedding"], faults == 0, rules.dim)
    with np.errstate(over="ignore"):
        stored = given.astype(rules.dtype, copy=False)
    wrong = _unusable(stored, rules.metric)
    places = np.flatnonzero(faults == 0)
    details = {
        place: f"row {numbers[place]}: "
        + _about_row(faults[place], batch["uri"][place], int(lengths[place]), rules)
        for place in np.flatnonzero(faults).tolist()
    }
    for row in np.flatnonzero(wrong).tolist():
        place = int(places[row])
        details[place] = f"row {numbers[place]}: " + _about_values(wrong[row], given[row], rules)
    faults[places] = wrong
    return Judged(faults, stored if not wrong.any() else stored[wrong == 0], details)


def _components(column: pa.Array, wanted: npt.NDArray[np.bool_], dim: int) -> npt.NDArray[Any]:
    """The vectors (m, dim) of the rows wanted, as given; a component that is null is NaN."""
    rows = column if wanted.all() else column.filter(pa.array(wanted))
    flat = rows.flatten()
    return flat.to_numpy(zero_copy_only=False).reshape(len(rows), dim)  # type: ignore[no-any-return]


def _unusable(stored: npt.NDArray[Any], metric: str) -> npt.NDArray[np.uint8]:
    """The fault of each vector (m,), 0 for none."""
    faults = np.zeros(len(stored), dtype=np.uint8)
    vectors = stored.astype(np.float32, copy=False)  # half floats are slow to compare
    if metric == "jaccard":
        faults[(vectors < 0).any(axis=1)] = NEGATIVE
    if metric in ("cosine", "jaccard"):
        faults[~vectors.any(axis=1)] = ZERO_VECTOR
    faults[too_long(vectors, metric)] = TOO_LONG
    faults[~np.isfinite(vectors).all(axis=1)] = NOT_FINITE
    return faults


def _about_row(fault: int, uri: pa.Scalar, length: int, rules: Rules) -> str:
    if fault == NULL_URI:
        return "its uri is null or empty"
    if fault == DUPLICATE_URI:
        return f"its uri is that of an earlier row, which counts: {uri.as_py()}"
    if fault == NULL_VECTOR:
        return "its embedding is null"
    return f"its embedding has {length} components, the store's have {rules.dim}"


def _about_values(fault: int, given: npt.NDArray[Any], rules: Rules) -> str:
    if fault == ZERO_VECTOR:
        kept = "" if not given.any() else f" as {rules.dtype}"
        return f"all {rules.dim} components are 0{kept}, which {rules.metric} forbids"
    if fault == NEGATIVE:
        at = int(np.argmax(given < 0))
        return f"component {at} is {given[at]!s}, and jaccard needs at least 0"
    if fault == TOO_LONG:
        return about_length(given, rules.metric)
    with np.errstate(over="ignore"):
        at = int(np.argmin(np.isfinite(given.astype(rules.dtype))))
    beyond = f", more than a {rules.dtype} holds" if np.isfinite(given[at]) else ""
    return f"component {at} is {given[at]!s}{beyond}; all must be finite"
