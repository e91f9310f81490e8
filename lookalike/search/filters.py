"""Conditions as selections of living rows, those of the last few kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock

from lookalike.distances import Ids
from lookalike.ivf.selections import Selection, difference
from lookalike.store.matching import matching_ids
from lookalike.store.objects import Store

_KEPT = 8
_KEPT_BYTES = 256 << 20  # all of them together, but for the last


class Filters:
    """The rows of a snapshot that fulfil a condition; threads may share one."""

    def __init__(self, store: Store, files: Mapping[int, str], forgotten: Ids) -> None:
        """Filter the embedding shards at `files`, by file number, without the forgotten ids."""
        self._store, self._files, self._forgotten = store, files, forgotten
        self._kept: OrderedDict[str, Selection] = OrderedDict()
        self._lock = Lock()

    def select(self, where: str) -> Selection:
        """The living rows for which a condition is true.

        Raises:
            RequestError: See `matching_ids`.
        """
        with self._lock:
            if where in self._kept:
                self._kept.move_to_end(where)
                return self._kept[where]
        found = matching_ids(self._store, self._files, where)
        selection = Selection(difference(found, self._forgotten))
        with self._lock:
            self._kept[where] = selection
            while len(self._kept) > 1 and self._too_much():
                self._kept.popitem(last=False)
        return selection

    def _too_much(self) -> bool:
        size = sum(selection.ids.nbytes for selection in self._kept.values())
        return len(self._kept) > _KEPT or size > _KEPT_BYTES
