"""Which rows of a ledger stay when images are forgotten, and which texts tell of these."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.store.ledger import as_known
from lookalike.store.patterns import SHORTEST, Patterns
from lookalike.store.traces import spellings


@dataclass(frozen=True)
class Sparing:
    """What must go: names of images and sha256 of contents, both sorted; it travels to workers."""

    names: tuple[str, ...]
    contents: tuple[bytes, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return Sparing, (self.names, self.contents)  # without what is looked for with

    def __call__(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Rows (n,) of a ledger that stay; what was removed before has been told once."""
        names, contents = self._columns
        ours = pc.or_kleene(
            pc.is_in(table["uri"], names), pc.is_in(table["content_sha256"], contents)
        )
        gone = pc.or_(ours.fill_null(False), pc.equal(table["status"], "removed"))
        keep: npt.NDArray[np.bool_] = ~gone.to_numpy()
        # What a rejected row says of itself is its own affair; what it says of others is not.
        said = as_known(table).select(["uri", "status", "detail"]).to_pylist()
        for number, row in enumerate(said):
            detail = (row["detail"] or "").replace(row["uri"], "")
            if keep[number] and detail and row["status"] != "duplicate":
                keep[number] = not self.told_in(detail)
        return keep

    def told_in(self, text: str) -> bool:
        """Whether a text has one of the names in it, or is one that is too short to look for."""
        found = next(self._patterns.find(text.encode("utf-8", "surrogateescape")), None)
        return found is not None or text in self.names

    @cached_property
    def _columns(self) -> tuple[pa.Array, pa.Array]:
        return pa.array(self.names, pa.string()), pa.array(self.contents, pa.binary(32))

    @cached_property
    def _patterns(self) -> Patterns:
        spelt = (one for name in self.names for one in spellings(name))
        return Patterns([one for one in spelt if len(one) >= SHORTEST])
