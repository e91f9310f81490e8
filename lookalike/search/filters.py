"""Conditions as selections of living rows, those of the last few kept."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

from lookalike.distances import Ids
from lookalike.ivf.selections import Selection, difference
from lookalike.store.matching import matching_ids
from lookalike.store.objects import Store
from lookalike.store.recent import Recent

_KEPT = 8  # at most
_KEPT_BYTES = 256 << 20  # all of them together, but for the last


class Filters:
    """The rows of a snapshot that fulfil a condition; threads may share one."""

    def __init__(self, store: Store, files: Mapping[int, str], forgotten: Ids) -> None:
        """Filter the embedding shards at `files`, by file number, without the forgotten ids."""
        self._store, self._files, self._forgotten = store, files, forgotten
        self._kept: Recent[str, Selection] = Recent(_KEPT_BYTES, _weight)
        self._lock = Lock()

    def select(self, where: str) -> Selection:
        """The living rows for which a condition is true.

        Raises:
            RequestError: See `matching_ids`.
        """
        with self._lock:
            kept = self._kept.get(where)
        if kept is not None:
            return kept
        found = matching_ids(self._store, self._files, where)
        selection = Selection(difference(found, self._forgotten))
        with self._lock:
            self._kept.put(where, selection)
        return selection


def _weight(selection: Selection) -> int:
    """Bytes, or so many that no more than _KEPT are kept."""
    return max(selection.ids.nbytes, _KEPT_BYTES // _KEPT)
