"""The values that cross stages. Nothing of the project is imported with this module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Metadata = Mapping[str, object]


@dataclass(frozen=True)
class SourceFile:
    """One file found by a scan, before anything of it was read.

    Attributes:
        uri: Absolute path or URI; bytes that are not UTF-8 are percent-encoded. What lies in a
            container is `<container>#<member name>` or `<container>#<row number>`.
        bytes: Size as listed, or -1 where the store does not tell.
        version: What the store says changes with the content (for files the mtime in ns).
        problem: Why the scan could not reach it ("" if it could); such a row is rejected.
        hides: Where nobody can tell tonight what is there, the names that may be: what begins with
            this where it ends in `/` or `#`, or is "" for all that is not listed, else the one
            name. None where there is nothing to be told: no problem, or one of the file itself.
        metadata: Further columns of the manifest, shard or table that named it.
        container: Path or URI of the tar or Parquet file it lies in; "" for a file of its own.
        offset: Where in the container: first byte of its data in the (unpacked) tar, or row of the
            table; -1 for a file of its own.
        group: Number of the part of the container that makes one piece of work: the row group of a
            table, a run of members of a tar. Not needed for reading.
    """

    uri: str
    bytes: int
    version: str
    problem: str = ""
    metadata: Metadata = field(default_factory=dict)
    container: str = ""
    offset: int = -1
    group: int = 0
    hides: str | None = None


def container_start(container: SourceFile) -> str:
    """What the names of all that lies in a container begin with."""
    return f"{container.uri}#"


@dataclass(frozen=True)
class Unit:
    """One work unit of a run; all paths are relative to the store.

    Attributes:
        number: Of the unit within its run.
        file_no: The number its shard will bear.
        shard: Where the vectors go: the name of the file but for the hash of its content.
        ledger: Where the rows on its files go, likewise.
        done: The record, which names both files: put last, and only where there is none (see
            `store.attempts`). With it the unit is finished, and need not be done again.
    """

    number: int
    file_no: int
    shard: str
    ledger: str
    done: str
