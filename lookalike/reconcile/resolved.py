"""What resolving a run comes to, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Resolved:
    """What a run comes to.

    Attributes:
        counts: Of the final ledger, as `Counts.to_json` gives them.
        changes: previous, unchanged, changed, removed, unknown, added, renamed, rehashed files.
        copies: Rows to be written with a copied vector.
        deleted: Ids that are deleted from now on.
        altered: Rows that differ from the last ledger's in more than embedded or unchanged.
        parts: Partitions of names.
        unread: Files listed that could not be read, and are unknown.
        copy_shards: Shards that those copies become.
    """

    counts: Mapping[str, Any]
    changes: Mapping[str, int]
    copies: int
    deleted: int
    altered: int
    parts: int
    unread: int = 0
    copy_shards: int = 0

    @property
    def nothing_happened(self) -> bool:
        """Whether the last ledger says the same."""
        return not (self.altered or self.changes["removed"] or self.changes["added"])

    def to_json(self) -> dict[str, Any]:
        """As resolved.json holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Resolved:
        """Undo `to_json`."""
        return cls(**data)
