"""By name: ledger rows as a run leaves them, against those that they take the place of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.store.ledger import SCHEMA, with_column

EXCLUDED = "excluded"
"""The reason of files that were removed since the config leaves them out."""
RESOLVED = pa.schema([*SCHEMA, ("change", pa.string())])
"""Rows resolved: `change` is "added", "changed", "removed", or "" where the content is the same."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Concluded:
    """What became of some names.

    Attributes:
        rows: Ledger rows as they will be (`RESOLVED`), without the names that went.
        removed: Rows of the names that went, as they were.
        rehashed: Files that were looked at again and have the content that they had.
        altered: Rows that differ from what they were in more than embedded or unchanged.
    """

    rows: pa.Table
    removed: pa.Table
    rehashed: int
    altered: int


def conclude(rows: pa.Table, gone: pa.Table) -> Concluded:
    """Compare rows with those of the last ledger.

    Args:
        rows: Ledger rows with `was`: the status before of those carried on, "" for looked-at files.
        gone: Rows of the last ledger that do not stand (`one_partition.GONE`); all of the names in
            `rows` not carried on.
    """
    carried = pc.not_equal(rows["was"], "").to_numpy()
    place = pc.index_in(rows["uri"], value_set=gone["uri"])
    known = place.is_valid().to_numpy()
    before = gone.take(place)  # null where it is new
    same = carried | (known & _same_content(rows, before))
    altered = carried | (known & ~_same_row(rows, before))
    kinds = np.where(same, 0, np.where(known, 1, 2)).astype(np.int8)
    change = pa.DictionaryArray.from_arrays(pa.array(kinds), pa.array(["", "changed", "added"]))
    rows = _emptied(rows, before)
    return Concluded(
        rows.select(SCHEMA.names).append_column("change", change.dictionary_decode()),
        gone.filter(pc.invert(pc.is_in(gone["uri"], value_set=rows["uri"]))),
        int((same & ~carried).sum()),
        int(altered.sum()),
    )


def _emptied(rows: pa.Table, before: pa.Table) -> pa.Table:
    """A file without bytes is a placeholder; one that was a picture has lost it, and is rejected.

    Else a full disk, or a copy that failed, would take pictures away within every limit.
    """
    empty = pc.and_(pc.equal(rows["status"], "ignored"), pc.equal(rows["reason"], "empty"))
    told = pc.and_(pc.equal(before["status"], "rejected"), pc.equal(before["reason"], "empty"))
    lost = pc.and_(empty, pc.or_(before["id"].is_valid(), pc.fill_null(told, False)))
    return with_column(rows, "status", pc.if_else(lost, "rejected", rows["status"]))


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> Mask:
    """Where two columns have the same value, or both none."""
    same = pc.fill_null(pc.equal(one, other), False).to_numpy()
    neither = pc.and_(one.is_null(), other.is_null()).to_numpy()
    found: Mask = same | neither
    return found


def _status(table: pa.Table) -> pa.ChunkedArray:
    """`embedded` is `unchanged` of the next day."""
    column = table["status"]
    return pc.if_else(pc.equal(column, "embedded"), "unchanged", column)


def _same_content(rows: pa.Table, before: pa.Table) -> Mask:
    """Where the content is the same; where it could not be read, all that can be known."""
    equal = _equal(rows["content_sha256"], before["content_sha256"])
    unknown = rows["content_sha256"].is_null().to_numpy()
    alike = _equal(_status(rows), _status(before))
    for name in ("bytes", "version"):
        alike &= _equal(rows[name], before[name])
    found: Mask = equal & (alike | ~unknown)
    return found


def _same_row(rows: pa.Table, before: pa.Table) -> Mask:
    found = _equal(_status(rows), _status(before))
    for name in SCHEMA.names:
        if name not in ("uri", "status"):
            found &= _equal(rows[name], before[name])
    return found


def as_removed(gone: pa.Table) -> pa.Table:
    """The rows (`RESOLVED`) that the ledger has once more of files that are gone."""
    rows = gone.num_rows
    columns = {
        **{name: gone[name] for name in SCHEMA.names},
        "status": pa.repeat("removed", rows),
        "reason": pc.if_else(pc.equal(gone["left_out"], ""), "", EXCLUDED),
        "detail": gone["left_out"],
        "id": pa.nulls(rows, pa.int64()),
        "change": pa.repeat("removed", rows),
    }
    return pa.table(columns, schema=RESOLVED)
