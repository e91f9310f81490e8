"""Which rows of some tables bear a uri that an earlier row bears, in bounded memory.

Every uri becomes a digest of 16 bytes (two rows of ten billion would meet by chance once in 10^18
times), dealt out to files by its first bits; each file is then sorted by itself.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.store.files import make_folder, remove_tree

_PART_ROWS = 4_000_000  # compared at once, of about 100 bytes each
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])

Rows = npt.NDArray[np.int64]


class UriDigests:
    """Takes uris with the numbers of their rows, ascending; a context, of files in a folder."""

    def __init__(self, folder: Path, rows: int) -> None:
        """Expect uris of rows 0 to `rows`, with files in a folder that is made and dropped."""
        self._folder, self._rows = folder, rows
        parts = max(1, -(-rows // _PART_ROWS))
        self._paths = [folder / f"{part:05d}.bin" for part in range(parts)]

    def __enter__(self) -> UriDigests:
        """Use as a context, which makes the folder."""
        remove_tree(self._folder)
        make_folder(self._folder)
        return self

    def __exit__(self, *error: object) -> None:
        remove_tree(self._folder)

    def add(self, uris: pa.Array, rows: Rows) -> None:
        """Take uris (n,), none of them null, and the numbers of their rows (n,)."""
        records, parts = _records(uris, rows), np.uint64(len(self._paths))
        which = (records["high"] >> np.uint64(32)) * parts >> np.uint64(32)
        for part in np.unique(which).tolist():
            with open(self._paths[part], "ab") as file:
                some = records if parts == 1 else records[which == part]
                file.write(some.tobytes())  # it says why it fails, `tofile` does not

    def repeats(self) -> npt.NDArray[np.bool_]:
        """Whether an earlier row bears the uri of a row, (rows,); when all were taken."""
        found = np.zeros(self._rows, dtype=bool)  # as the system gives it: only what is set costs
        for path in filter(Path.exists, self._paths):
            found[_repeats(np.fromfile(path, dtype=_RECORD))] = True
        return found


def _records(uris: pa.Array, rows: Rows) -> npt.NDArray[np.void]:
    blake2b = hashlib.blake2b
    texts = uris.cast(pa.large_binary()).to_pylist()
    joined = b"".join([blake2b(text, digest_size=16).digest() for text in texts])
    records = np.empty(len(rows), dtype=_RECORD)
    digests = np.frombuffer(joined, dtype="<u8").reshape(-1, 2)
    records["high"], records["low"], records["row"] = digests[:, 0], digests[:, 1], rows
    return records


def _repeats(records: npt.NDArray[np.void]) -> Rows:
    """Rows of the records that are not the first of their digest; those come in order of rows."""
    high, low = records["high"], records["low"]
    order = np.argsort(high, kind="stable")
    alike = high[order][1:] == high[order][:-1]
    if (alike & (low[order][1:] != low[order][:-1])).any():  # digests with a half in common
        order = np.lexsort((records["row"], low, high))
        alike = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    rows: Rows = records["row"][order][1:][alike].astype(np.int64)
    return rows
