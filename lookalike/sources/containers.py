"""Files that hold pictures of which each is a file of its own to us, told by their names.

Apart from what reads them, so that a decoder of other files need not load that.
"""

from __future__ import annotations

from lookalike.store import storage

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
TABLE_SUFFIX = ".parquet"


def is_tar(uri: str) -> bool:
    """Whether a file's name says that it is a tar shard."""
    return storage.plain_name(uri).lower().endswith(TAR_SUFFIXES)


def is_table(uri: str) -> bool:
    """Whether a file's name says Parquet."""
    return storage.plain_name(uri).lower().endswith(TABLE_SUFFIX)
