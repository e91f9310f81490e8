"""Whether a listed file is as the ledger has it: nothing of it needs to be read then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.reconcile.metadata import metadata_hashes

_RACY_NS = 2_000_000_000  # as coarse as the times of some file systems are
_ALWAYS_RETRIED = "unreadable"
_APPLE_DOUBLE = r"[/#]\._[^/#]*$"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Rows `numbers` (n,) of a table; of its columns those are taken that are looked at."""

    table: pa.Table
    numbers: pa.Array

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        """One column of these rows."""
        return self.table[name].take(self.numbers)


@dataclass(frozen=True)
class Rule:
    """Which files are the same; the attributes are those of `compare`."""

    scanned_ns: int | None
    rehash: bool
    retry: frozenset[str] | None
    metadata: pa.Schema | None

    def same(self, listed: pa.Table, was: Rows) -> Mask:
        """Rows of the listing, and what the ledger says of the same names: (n,) bool."""
        if self.rehash:
            return np.zeros(listed.num_rows, dtype=np.bool_)
        alike = pc.and_(
            pc.and_(
                pc.equal(listed["bytes"], was["bytes"]), pc.equal(listed["version"], was["version"])
            ),
            pc.and_(pc.not_equal(listed["version"], ""), pc.equal(listed["problem"], "")),
        )
        same = _mask(alike) & ~self._retried(was)
        if self.metadata is not None:
            names = self.metadata.names
            none = np.zeros(listed.num_rows, dtype=np.int64)
            hashes = metadata_hashes(listed.select(names)) if names else none
            same &= _mask(pc.equal(was["metadata_hash"], pa.array(hashes)))
        if self.scanned_ns is not None:
            same &= ~_changed_since(listed["version"], self.scanned_ns - _RACY_NS)
        return same

    def _retried(self, was: Rows) -> Mask:
        rejected = _mask(pc.equal(was["status"], "rejected"))
        if not rejected.any() or (self.retry is not None and not self.retry):
            return rejected
        reasons = pa.array(sorted({_ALWAYS_RETRIED, *(self.retry or ())}))
        retried = rejected & _mask(pc.is_in(was["reason"], value_set=reasons))
        # by versions that did not know what a Mac writes beside files
        named = pc.match_substring_regex(was["uri"], _APPLE_DOUBLE)
        return retried | (rejected & _mask(pc.and_(pc.equal(was["reason"], "not_an_image"), named)))


def _changed_since(versions: pa.ChunkedArray, time_ns: int) -> Mask:
    """Whether a version `<ns>` or `<ns>+<more>` is that time or later; no other version is."""
    digits = versions
    plain = pc.and_(pc.ascii_is_decimal(versions), pc.invert(pc.starts_with(versions, "0")))
    if not pc.all(plain).as_py():
        found = pc.extract_regex(versions, r"^0*(?P<ns>[0-9]+)(?:\+.*)?$")
        digits = pc.fill_null(pc.struct_field(found, "ns"), "")
    length, limit = pc.utf8_length(digits), str(max(time_ns, 0))
    later = pc.greater_equal(digits, limit)  # in the order of numbers, among those as long
    as_long = pc.equal(length, len(limit))
    return _mask(pc.or_(pc.greater(length, len(limit)), pc.and_(as_long, later)))


def _mask(column: pa.ChunkedArray) -> Mask:
    mask: Mask = column.to_numpy()
    return mask
