"""What a comparison of a listing with the parent's ledger leaves: totals, and files by partition.

Rows of the ledger that stand are where they were: see `standing`.

compared.json          the totals, once all is done (`Comparison`)
parts/NNNNNN.json      of a partition of names: its totals and files
places/NNNNNN.json     the same of places in it that could not be listed, where there are any
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from lookalike.sources.listing import Listing
from lookalike.store.attempts import Part
from lookalike.store.manifest import FileLine
from lookalike.store.objects import Store

PARTS, PLACES = "parts", "places"


@dataclass(frozen=True)
class Comparison:
    """What came of comparing.

    listed = same + touched + new, previous = same + touched + gone + unknown.

    Attributes:
        previous: Files of the parent's ledger, removed ones left out.
        listed: Files of the listing, each counted once, without those that are unknown.
        same: Listed as the ledger has them.
        new: Listed, and not in the ledger.
        touched: In both, and to be looked at again.
        gone: In the ledger, and not listed.
        unknown: In the ledger, and nobody can tell what became of them.
        shifted: Of the rows that stand, those that are unknown now and were not, or the reverse, or
            for another reason.
        repeated: Rows of the listing that repeat the name of an earlier one.
        bytes: Of the candidates, roughly, as they are held in memory.
        places: Rows of the listing that stand for places that could not be listed.
        digest: sha256 over the names, sizes and versions of all rows listed, in order.
    """

    previous: int = 0
    listed: int = 0
    same: int = 0
    new: int = 0
    touched: int = 0
    gone: int = 0
    parts: int = 0
    bytes: int = 0
    unknown: int = 0
    shifted: int = 0
    repeated: int = 0
    places: int = 0
    digest: str = ""

    def __add__(self, other: Comparison) -> Comparison:
        """Both together."""
        added = asdict(other)
        return Comparison(**{name: value + added[name] for name, value in asdict(self).items()})


def totals_of(store: Store, folder: str) -> Comparison | None:
    """The totals of a comparison below a folder; None before it is finished."""
    found = store.read(f"{folder}/compared.json")
    return Comparison(**json.loads(found.data)) if found else None


def files_of(store: Store, folder: str, kind: str, number: int | None = None) -> list[str]:
    """Paths of files ("carried", "candidates" or "gone"), in order: of a partition, or of all.

    A partition has none where there is no such row, one of its files, and one of places.
    """
    return [line["path"] for line in lines_of(store, folder, kind, number)]


def lines_of(
    store: Store, folder: str, kind: str, number: int | None = None
) -> Iterator[dict[str, Any]]:
    """The same files: path, sha256, bytes and rows of each."""
    below = [f"{folder}/{which}" for which in (PARTS, PLACES)]
    if number is None:
        paths = list(chain.from_iterable(store.files(one, ".json") for one in below))
        paths.sort(key=lambda path: path.rpartition("/")[2])  # of a partition, files come first
    else:
        paths = [Part(one, number).done for one in below]
    for found in store.read_all(paths):
        line = json.loads(found.data)["files"].get(kind) if found else None
        if line:
            yield line


def stands_of(store: Store, folder: str, number: int) -> list[FileLine]:
    """Manifest's lines of the parent's ledger files whose rows stand in a partition of names.

    But for those of which the partition's own files tell: see `standing`.
    """
    found = store.read(Part(f"{folder}/{PARTS}", number).done)
    lines: list[FileLine] = json.loads(found.data).get("stands", []) if found else []
    return lines


def candidates(store: Store, folder: str) -> Listing:
    """The candidates of a finished comparison, to be cut into units."""
    found = Comparison(**store.read_json(f"{folder}/compared.json"))
    parts = tuple(files_of(store, folder, "candidates"))
    return Listing(parts, found.new + found.touched, found.bytes)
