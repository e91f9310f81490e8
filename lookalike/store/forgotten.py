"""Contents that must not come back: what was forgotten may be listed, but is never kept again.

Two hashes deep, so that no file of the store holds the hash of a content that is forgotten. Each
file, named by the manifest (kind "forgotten"), is NumPy's .npy format: (n, 32) bytes, each row the
sha256 of a content's sha256, ascending and distinct.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.store.files import FileRecord
from lookalike.store.ledger import LedgerRow
from lookalike.store.objects import Store

KIND = "forgotten"
"""Of the manifest's lines for these files."""

REASON = "forgotten"
"""Of the ledger's rows on files with such a content."""

_SIZE = hashlib.sha256().digest_size
_ITEM = np.dtype(f"S{_SIZE}")  # compares byte by byte

Items = npt.NDArray[np.bytes_]


@dataclass(frozen=True)
class Forgotten:
    """Asked with the sha256 of a content: `sha256 in forgotten`.

    Attributes:
        items: (n,) of 32 bytes, ascending and distinct.
    """

    items: Items = field(default_factory=lambda: np.empty(0, _ITEM))

    @classmethod
    def load(cls, paths: Iterable[Path]) -> Forgotten:
        """What all files list together.

        Raises:
            RequestError: A file is not one that `write_forgotten` wrote.
        """
        return cls(np.unique(np.concatenate([np.empty(0, _ITEM), *map(_read, paths)])))

    def __len__(self) -> int:
        """Number of contents."""
        return len(self.items)

    def __contains__(self, sha256: object) -> bool:
        """Whether the content of that hash was forgotten."""
        if not len(self.items) or not isinstance(sha256, bytes):
            return False
        wanted = _items([sha256])
        at = int(np.searchsorted(self.items, wanted)[0])
        return bool((self.items[at : at + 1] == wanted).any())


def forgotten_row(uri: str, sha256: bytes) -> LedgerRow:
    """The ledger's row on a listed file with a forgotten content: without its name and its hash."""
    name = hashlib.sha256(sha256 + uri.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return LedgerRow(f"forgotten:{name}", "ignored", REASON)


def write_forgotten(
    store: Store, relative: str, sha256s: Iterable[bytes], before: Forgotten | None = None
) -> FileRecord:
    """Write the list of what was forgotten before and of further contents.

    Args:
        store: The store's root.
        relative: Of the file.
        sha256s: Hashes of the contents to forget, in any order and repeated or not.
        before: What was forgotten already.
    """
    known = (before or Forgotten()).items
    items = np.unique(np.concatenate([known, _items(sha256s)]))
    rows = items.view(np.uint8).reshape(-1, _SIZE)
    with store.write(relative) as pending:
        np.lib.format.write_array(pending.file, rows, version=(1, 0), allow_pickle=False)
    return pending.finished


def _items(sha256s: Iterable[bytes]) -> Items:
    """What is kept of the contents' hashes."""
    joined = b"".join([hashlib.sha256(sha256).digest() for sha256 in sha256s])
    return np.frombuffer(joined, _ITEM)


def _read(path: Path) -> npt.NDArray[Any]:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RequestError(f"{path}: not readable as what was forgotten: {error}") from error
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != _SIZE:
        raise RequestError(
            f"{path}: not a list of what was forgotten: that is {_SIZE} bytes for each content; "
            "run: lookalike verify"
        )
    return np.ascontiguousarray(rows).reshape(-1).view(_ITEM)
