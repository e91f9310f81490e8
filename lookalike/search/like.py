"""Rows of a store as queries, by name or id: their vectors are there, so nothing is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.distances import Ids
from lookalike.errors import RequestError
from lookalike.search.asked import asked_ids
from lookalike.store.duplicates import DuplicateReader
from lookalike.store.forgetting import meanings
from lookalike.store.matching import matching_ids
from lookalike.store.objects import Store


def asked_rows(like: Any) -> list[str | int]:
    """Names and ids of rows that were asked for: of one, or of any iterable.

    Raises:
        RequestError: One is neither a text nor a whole number.
    """
    if isinstance(like, str):
        return [like]
    if isinstance(like, (int, np.integer)):
        like = [like]
    elif isinstance(like, (bytes, Mapping)) or not hasattr(like, "__iter__"):
        raise RequestError(f"like: needs uris or ids of rows of the store, got {like!r:.80}")
    rows = [one.as_py() if hasattr(one, "as_py") else one for one in like]
    return [str(one) if isinstance(one, str) else int(asked_ids("like", [one])[0]) for one in rows]


def rows_named(
    store: Store,
    files: Mapping[int, str],
    duplicates: DuplicateReader,
    names: Sequence[str],
    uris_of: Any,
) -> dict[str, list[int]]:
    """Ids of the rows, living or deleted, that bear each of the names, or are the same picture."""
    given = {meaning: name for name in names for meaning in meanings(name)}
    if not given:
        return {}
    texts = ", ".join("'" + one.replace("'", "''") + "'" for one in given)
    ids = matching_ids(store, files, f"uri in ({texts})")
    found: dict[str, list[int]] = {name: [] for name in names}
    for row, uri in zip(ids.tolist(), uris_of(ids), strict=True):
        found[given[uri]].append(row)
    missing = [meaning for meaning, name in given.items() if not found[name]]
    for uri, row in duplicates.rows_of(pa.array(missing, pa.string())) if missing else ():
        found[given[uri]].append(row)
    return found


def split_unlike(unlike: Any) -> tuple[Ids, Any]:
    """Of what answers shall be unlike: ids of rows (n,) int64, and the pictures."""
    none = np.empty(0, dtype=np.int64)
    if isinstance(unlike, (int, np.integer)):
        return asked_ids("unlike", [unlike]), []
    if isinstance(unlike, (list, tuple, set, frozenset)):
        rows = [one for one in unlike if isinstance(one, (int, np.integer))]
        ids = asked_ids("unlike", rows) if rows else none
        return ids, [one for one in unlike if not isinstance(one, (int, np.integer))]
    return none, unlike
