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
) -> Searcher:
    """Open a store's published snapshot for searching.

    Args:
        store: The store's folder.
        snapshot: Another snapshot than the published one, by name.
        features: Refuse the store unless it was made with exactly these.
        check: Hash every file of the snapshot before any is read, by all cores. Without it, files
            must be there and of the right size.

    Raises:
        RequestError: There is nothing published, a file is missing or not what the manifest says,
            or the snapshot was made with another model or preprocessing; both are named.
    """
    from lookalike.search import Searcher  # Faiss is loaded only by those who search

    return Searcher.open(Path(store), snapshot, features=features, check=check)
