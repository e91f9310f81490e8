"""Publishing a snapshot of the tests' own making, as a run does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lookalike.pipelines.stores import StoreHandle
from lookalike.store.objects import Store


def publish(store: Store, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, and point CURRENT at it, while the store is held."""
    place = StoreHandle(store)
    with place.writing():
        place.publish(manifest)
