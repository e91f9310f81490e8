"""lookalike: image-by-image search, built offline.

import lookalike
searcher = lookalike.open("store")
for neighbour in searcher.search(["query.jpg"], k=5)[0]:
    print(neighbour.rank, neighbour.score, neighbour.uri)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from lookalike.errors import NotPublishedError, RequestError
from lookalike.search.neighbour import Neighbour, Neighbours

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from lookalike.models.features import Feature
    from lookalike.models.projection import Projection
    from lookalike.search.searcher import Searcher

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program decides what is shown

__version__ = "0.1.0"
__all__ = [
    "Neighbour",
    "Neighbours",
    "NotPublishedError",
    "RequestError",
    "Searcher",
    "__version__",
    "dataset",
    "open",
]


def __getattr__(name: str) -> Any:
    """`lookalike.Searcher`: Faiss is loaded only by those who search."""
    if name == "Searcher":
        from lookalike.search.searcher import Searcher

        return Searcher
    raise AttributeError(f"module 'lookalike' has no attribute {name!r}")


def open(
    store: str | os.PathLike[str],
    snapshot: str | None = None,
    *,
    features: Sequence[Feature] | None = None,
    projection: Projection | None = None,
    check: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> Searcher:
    """Open a store's published snapshot for searching.

    Args:
        store: The store's folder; or its URI on object storage, from which what is needed is
            fetched into a local folder.
        snapshot: Another snapshot than the published one, by name.
        features: Refuse the store unless it was made with exactly these,
        projection: and this behind them.
        check: Hash every file of the snapshot before any is read, by all cores. Without it, files
            must be there and of the right size.
        cache: Where what is fetched lies (default: ~/.cache/lookalike).

    Raises:
        RequestError: There is nothing published, a file is missing or not what the manifest says,
            or the snapshot was made with another model or preprocessing; both are named.
    """
    from lookalike.search.searcher import Searcher

    return Searcher.open(
        store, snapshot, features=features, projection=projection, check=check, cache=cache
    )


def dataset(
    store: str | os.PathLike[str],
    snapshot: str | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
) -> Any:
    """The rows of a store that searches can return, for Arrow, DuckDB, pandas, polars.

    The files under `embeddings/` must not be read by themselves: they keep rows that are deleted
    or were written anew elsewhere. See docs/reading-a-store.md for the columns.

    Args:
        store: The store's folder, or its URI on object storage, as for `open`.
        snapshot: Another snapshot than the published one, by name.
        cache: Where what is fetched lies (default: ~/.cache/lookalike).

    Returns:
        A `pyarrow.dataset.Dataset`, which reads when it is scanned, some rows at a time. It is of
        one snapshot for good; after `lookalike gc` has removed that, scanning fails.

    Raises:
        RequestError: There is nothing published, no such snapshot, or a file of it is missing.
        lookalike.store.objects.ObjectStoreError: Object storage cannot be read.
    """
    from lookalike.store.living import living_dataset
    from lookalike.store.objects import open_store
    from lookalike.store.snapshot import read_manifest

    place = open_store(store, cache)
    return living_dataset(place, read_manifest(place, snapshot))
