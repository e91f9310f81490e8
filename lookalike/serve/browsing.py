"""Looking around in a snapshot without a query: at random, by folder, copies, what is odd."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.cells import cells
from lookalike.distances import Ids, Scores, better_is_higher
from lookalike.errors import RequestError
from lookalike.search.searcher import Searcher
from lookalike.store.literals import family
from lookalike.store.living import living_dataset
from lookalike.store.snapshot import files_of

COLUMNS = ("uri", "width", "height", "format", "bytes")
"""Beside the metadata columns, what conditions are about."""

SAMPLE = 256
"""Rows of which those are found that are like no other."""

_LOOKED_AT = 50_000  # rows of which a column's values are shown
_VALUES = 50
_FOLDERS = 1000  # of one level
_SPARE = 64


@dataclass(frozen=True)
class Listing:
    """Some rows in their order.

    Attributes:
        ids: (n,).
        total: Rows that there are, about: deleted ones count until they are looked at.
        next: Where the next ones begin; None after the last.
    """

    ids: Ids
    total: int
    next: int | None = None


def passing(now: Searcher, where: str) -> Ids:
    """Ids (n,) of the living rows that fulfil a condition, ascending.

    Raises:
        RequestError: The condition cannot be used.
    """
    selection = now.request(1, where=where).selection
    assert selection is not None
    return selection.ids


def random_rows(now: Searcher, k: int, seed: int, where: str | None) -> Listing:
    """Some rows at random, others for every seed.

    Raises:
        RequestError: The condition cannot be used.
    """
    places = _Places(now, where)
    drawn = np.random.default_rng(seed).choice(
        places.total, min(places.total, 2 * k + _SPARE), replace=False
    )
    return Listing(places.living(drawn)[:k], places.total)


def rows_in_order(now: Searcher, k: int, offset: int, where: str | None) -> Listing:
    """Rows as they are stored, from a place on.

    Raises:
        RequestError: The condition cannot be used.
    """
    places = _Places(now, where)
    end = min(offset + k, places.total)
    ids = places.living(np.arange(min(offset, end), end))
    return Listing(ids, places.total, end if end < places.total else None)


class _Places:
    """Rows by their place among all that match, or all that are stored, deleted ones too."""

    def __init__(self, now: Searcher, where: str | None) -> None:
        self._ids = None if where is None else passing(now, where)
        lines = files_of(now.manifest, "embedding")
        self._files = np.array([int(line["file_no"]) for line in lines], dtype=np.int64)
        self._ends = np.cumsum([int(line["rows"]) for line in lines], dtype=np.int64)
        self._deleted = now.living.ids if now.living else np.empty(0, np.int64)
        stored = int(self._ends[-1]) if len(lines) else 0
        self.total = stored if self._ids is None else len(self._ids)

    def living(self, places: Ids) -> Ids:
        """Ids of the living rows at some places, in their order."""
        if self._ids is not None:
            return self._ids[places]
        files = np.searchsorted(self._ends, places, side="right")
        starts = np.append(0, self._ends)[files]
        ids = (self._files[files] << 32) + places - starts if len(self._files) else places
        return ids[~np.isin(ids, self._deleted)]


def copies(now: Searcher, k: int, offset: int, where: str | None) -> Listing:
    """Rows of which there are copies under other names.

    Raises:
        RequestError: The condition cannot be used.
    """
    ids = now.duplicated()
    if where is not None:
        ids = ids[np.isin(ids, passing(now, where))]
    end = min(offset + k, len(ids))
    return Listing(ids[offset:end], len(ids), end if end < len(ids) else None)


def outliers(now: Searcher, k: int, seed: int, where: str | None = None) -> tuple[Listing, Scores]:
    """Of a sample of rows those that are least like any other row, and their best scores.

    Rows that a condition leaves out are not in the sample, but others may be like them.

    Raises:
        RequestError: The condition cannot be used.
    """
    ids = np.sort(random_rows(now, SAMPLE, seed, where).ids)
    vectors = np.array(now.rows(ids, "embedding")["embedding"].to_pylist(), np.float32)
    found, scores = now.search_vectors(
        vectors.reshape(len(ids), now.dim), 1, exclude=[[one] for one in ids.tolist()]
    )
    if not scores.size:
        return Listing(ids[:0], 0), np.empty(0, np.float32)
    there = found[:, 0] >= 0
    ids, best = ids[there], scores[there, 0]
    order = np.argsort(best if better_is_higher(now.metric) else -best, kind="stable")[:k]
    return Listing(ids[order], len(ids)), best[order]


# --- folders ------------------------------------------------------------------------------------


def count_folders(now: Searcher, most: int) -> Mapping[str, int]:
    """Living rows by the folder in which their files lie.

    Raises:
        RequestError: The snapshot has more rows than that.
    """
    if now.count > most:
        raise RequestError(
            f"folders: are counted in stores of {most:,} rows at most, this one has "
            f"{now.count:,}; use a condition: uri like '/folder/%'"
        )
    counts: Counter[str] = Counter()
    for batch in living_dataset(now.store, now.manifest).to_batches(columns=["uri"]):
        names = pc.replace_substring_regex(batch.column("uri"), "(^|/)[^/]*$", "")
        for one in pc.value_counts(names).to_pylist():
            counts[str(one["values"])] += int(one["counts"])
    return dict(counts)


def folders_under(counts: Mapping[str, int], under: str) -> dict[str, Any]:
    """The folders of one level; without `under`, below the deepest one that holds all."""
    top = _common(list(counts))
    start = under.rstrip("/") or top
    below: Counter[str] = Counter()
    for folder, count in counts.items():
        if child := _child(folder, start):
            below[child] += count
    folders = sorted(below)
    return {
        "folder": start,
        "top": top,
        "own": counts.get(start, 0),
        "total": counts.get(start, 0) + sum(below.values()),
        "folders": [
            {"name": folder.removeprefix(f"{start}/"), "folder": folder, "count": below[folder]}
            for folder in folders[:_FOLDERS]
        ],
        "more": max(0, len(folders) - _FOLDERS),
    }


# The first level where names of several kinds share none: /mnt, s3://bucket, file:///mnt, mnt.
_FIRST = re.compile(r"[A-Za-z][\w+.-]*://(?:[^/]+|/[^/]*)|/?[^/]*")


def _child(folder: str, start: str) -> str:
    """The folder directly below `start` that holds or is `folder`; "" where none does."""
    if not start:
        return _FIRST.match(folder)[0]  # type: ignore[index]  # it matches every text
    if not folder.startswith(f"{start}/"):
        return ""
    return f"{start}/{folder[len(start) + 1 :].partition('/')[0]}"


def _common(folders: list[str]) -> str:
    """The deepest folder that holds all."""
    if not folders:
        return ""
    parts = [one.split("/") for one in (min(folders), max(folders))]
    same = 0
    while same < min(map(len, parts)) and parts[0][same] == parts[1][same]:
        same += 1
    return "/".join(parts[0][:same])


def in_folder(folder: str, where: str | None) -> str:
    """The condition that a picture lies in a folder or below, and fulfils another."""
    escaped = folder.rstrip("/")
    for one in ("\\", "%", "_"):
        escaped = escaped.replace(one, f"\\{one}")
    inside = "uri like '" + escaped.replace("'", "''") + "/%'"
    return inside if where is None else f"{inside} and ({where})"


# --- columns ------------------------------------------------------------------------------------


def columns_of(now: Searcher) -> list[dict[str, str]]:
    """Names and types of the columns that conditions are about."""
    fixed = {"uri": "text", "format": "text"}
    own = [{"name": name, "type": fixed.get(name, "number"), "of": "file"} for name in COLUMNS]
    return own + [
        {"name": field.name, "type": family(field.type), "of": "metadata", "arrow": str(field.type)}
        for field in now.metadata_schema
    ]


def values_of(now: Searcher, column: str) -> dict[str, Any]:
    """The most frequent values of a column, and the least and greatest, among the first rows.

    Raises:
        RequestError: There is no such column.
    """
    known = [one["name"] for one in columns_of(now)]
    if column not in known:
        raise RequestError(f"there is no column {column!r:.80}; the columns are {', '.join(known)}")
    table = living_dataset(now.store, now.manifest).head(_LOOKED_AT, columns=[column])
    array = table[column].combine_chunks()
    found: dict[str, Any] = {"column": column, "rows": table.num_rows, "values": []}
    if pa.types.is_nested(array.type):
        return found
    array = array.drop_null()
    if len(array) and family(array.type) in ("number", "time", "clock", "duration"):
        ends = pc.min_max(array)
        for name, end in (("least", ends["min"]), ("greatest", ends["max"])):
            found[name] = cells(array.slice(pc.index(array, end).as_py(), 1))[0]
    counted = pc.value_counts(array)
    pairs = zip(cells(counted.field("values")), counted.field("counts").to_pylist(), strict=True)
    often = sorted(pairs, key=lambda pair: (-pair[1], str(pair[0])))[:_VALUES]
    found["values"] = [{"value": value, "count": count} for value, count in often]
    return found
