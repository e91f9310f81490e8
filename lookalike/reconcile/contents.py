"""Equal content, one vector: which name is the main one, which stored row stays, which are deleted.

Of the names of one content the smallest uri is the main one, whatever the history: so a store
depends on the files of the day and not on the days before. The row that is kept bears the main
name and its metadata; where no row does, one is to be written whose vector is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.distances import Ids
from lookalike.store.ledger import SCHEMA, UNKNOWN, as_known, is_unknown

CARRIED, UNIT, GONE = 0, 1, 2  # where a row comes from: see `Settled`
ROWS = pa.schema([*SCHEMA, ("origin", pa.int8())])
SETTLED = pa.schema([*SCHEMA, ("was", pa.string()), ("source", pa.int64())])
"""Ledger rows as they will be: the status that they had ("" for those of the units) and, of names
whose row is to be written with a copied vector, the id of the row to copy."""
_NONE = 2**63 - 1  # no id

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Settled:
    """What becomes of the names of some contents.

    Attributes:
        rows: `SETTLED`: all rows of the units, and those carried on that change.
        deleted: Ids of stored rows that nothing leads to any more, (n,) int64, in any order.
    """

    rows: pa.Table
    deleted: Ids
    copies: int


def settle(table: pa.Table, first_new: int, copy_ids: Callable[[int], Ids]) -> Settled:
    """Group names by content, and settle what becomes of them.

    Args:
        table: `ROWS`, all with content and id, in any order; of every content all names. Carried
            and gone rows are those of the last ledger; the units' are `embedded` (the id is new,
            and stored under that name), `duplicate` or `unchanged` (the id is of another name).
        first_new: The smallest id that this run may have made.
        copy_ids: Gives the ids of that many rows to be copied, (n,) int64, by source.

    Raises:
        RuntimeError: A content is known, but no row is stored under any name of it.
    """
    table = table.sort_by([(name, "ascending") for name in ("content_sha256", "uri", "origin")])
    said, table = table, as_known(table)
    starts = _differs(table["content_sha256"])
    group = np.cumsum(starts) - 1
    name = np.cumsum(starts | _differs(table["uri"]))
    count = int(starts.sum())
    origin, ids = table["origin"].to_numpy(), table["id"].to_numpy()
    metadata = table["metadata_hash"].to_numpy()

    living = origin != GONE
    main = np.full(count, -1, dtype=np.int64)  # the row with the smallest living uri
    rows = np.flatnonzero(living)[::-1]
    main[group[rows]] = rows
    lives = main >= 0

    owns = _owners(table, origin)
    same_name = lives[group] & (name == name[main[group]])
    fits = owns & same_name & (metadata == metadata[main[group]])
    kept, source = _smallest(ids, group, fits, count), _smallest(ids, group, owns, count)
    copied = np.flatnonzero(lives & (kept == _NONE))
    copied = copied[np.argsort(source[copied], kind="stable")]
    if len(copied) and source[copied[-1]] == _NONE:
        uri = table["uri"][int(main[copied[-1]])].as_py()
        raise RuntimeError(f"{uri}: its content is known, but no stored row of it was found")
    origins = np.where(kept == _NONE, source, kept)
    final = np.where(lives, kept, -1)
    final[copied] = copy_ids(len(copied))

    sources = np.full(len(ids), -1, dtype=np.int64)
    sources[main[copied]] = source[copied]
    deleted = ids[owns & (ids != final[group])]
    settled = _as_settled(
        table, said, main[group], final[group], origins[group] >= first_new, sources
    )
    return Settled(settled, deleted, len(copied))


def _differs(column: pa.ChunkedArray) -> Mask:
    """Whether each value is another than the one before; the first is."""
    found = np.ones(len(column), dtype=np.bool_)
    if len(column):
        found[1:] = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1)).to_numpy()
    return found


def _owners(table: pa.Table, origin: npt.NDArray[np.int8]) -> Mask:
    """Under whose name its id is stored."""
    embedded = pc.equal(table["status"], "embedded").to_numpy()
    repeats = pc.equal(table["status"], "duplicate").to_numpy()
    return np.asarray(np.where(origin == UNIT, embedded, ~repeats), dtype=np.bool_)


def _smallest(ids: Ids, group: Ids, which: Mask, count: int) -> Ids:
    """The smallest id of each group, of the rows chosen."""
    found = np.full(count, _NONE, dtype=np.int64)
    np.minimum.at(found, group[which], ids[which])
    return found


def _as_settled(
    table: pa.Table, said: pa.Table, main: Ids, ids: Ids, new: Mask, sources: Ids
) -> pa.Table:
    """The living rows as they will be, less those carried on that stay what they are.

    `said` are the same rows with those that are unknown as such: they stay unknown, and what they
    are known as is what changes. `sources` are ids of rows to copy, -1 where there is none.
    """
    origin = table["origin"].to_numpy()
    is_main = main == np.arange(len(main))
    kinds = np.where(is_main, np.where(new, 0, 1), 2).astype(np.int8)
    kinds_named = pa.DictionaryArray.from_arrays(
        pa.array(kinds), pa.array(["embedded", "unchanged", "duplicate"])
    ).dictionary_decode()
    details = pc.if_else(pa.array(is_main), "", table["uri"].take(pa.array(np.maximum(main, 0))))
    moved = (
        (ids != table["id"].to_numpy())
        | pc.not_equal(kinds_named, table["status"]).to_numpy()
        | pc.not_equal(details, table["detail"]).to_numpy()
    )
    stays = np.flatnonzero((origin == UNIT) | ((origin == CARRIED) & moved))
    was = pc.if_else(pa.array(origin == UNIT), "", said["status"])
    unknown = is_unknown(said)
    columns = {
        **{name: table[name] for name in SCHEMA.names},
        "status": pc.if_else(unknown, UNKNOWN, kinds_named),
        "reason": pc.if_else(unknown, said["reason"], ""),
        "detail": pc.if_else(unknown, said["detail"], details),
        "id": pa.array(ids),
        "known_status": pc.if_else(unknown, kinds_named, None),
        "known_reason": pc.if_else(unknown, "", None),
        "known_detail": pc.if_else(unknown, details, None),
        "was": was,
        "source": pa.array(sources, mask=sources < 0),
    }
    return pa.table(columns, schema=SETTLED).take(pa.array(stays))
