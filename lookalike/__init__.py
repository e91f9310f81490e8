"""lookalike: image-by-image search, built offline.

import lookalike
searcher = lookalike.open("store")
for neighbour in searcher.search(["query.jpg"], k=5)[0]:
    print(neighbour.rank, neighbour.score, neighbour.uri)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.errors import NotPublishedError, RequestError
from lookalike.records import Neighbour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lookalike.models.features import Feature
    from lookalike.search import Searcher

__version__ = "0.1.0"
__all__ = ["Neighbour", "NotPublishedError", "RequestError", "__version__", "open"]


def open(
    store: str | Path,
    snapshot: str | None = None,
    *,
    features: Sequence[Feature] | None = None,
    check: bool = False,
    cache: str | Path | None = None,
) -> Searcher:
    """Open a store's published snapshot for searching.

    Args:
        store: The store's folder; or its URI on object storage, from which what is needed is
            fetched into a local folder.
        snapshot: Another snapshot than the published one, by name.
        features: Refuse the store unless it was made with exactly these.
        check: Hash every file of the snapshot before any is read, by all cores. Without it, files
            must be there and of the right size.
        cache: Where what is fetched lies (default: ~/.cache/lookalike).

    Raises:
        RequestError: There is nothing published, a file is missing or not what the manifest says,
            or the snapshot was made with another model or preprocessing; both are named.
    """
    from lookalike.search import Searcher  # Faiss is loaded only by those who search
    from lookalike.store.storage import is_remote

    if is_remote(str(store)):
        from lookalike.store.mirror import local_copy

        store, snapshot = local_copy(store, snapshot, cache=cache)
    return Searcher.open(Path(store), snapshot, features=features, check=check)
