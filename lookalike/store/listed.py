"""Whether a snapshot knows a source that cannot be reached any more."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.store import snapshot
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store
from lookalike.store.s3_uri import canonical
from lookalike.store.storage import is_remote, path_from_uri, plain_name, uri_from_path


def was_listed(store: Store, manifest: Manifest, name: str) -> bool:
    """Whether a snapshot was made of a source of that name, or has files below or in it.

    Args:
        store: The store's root.
        manifest: Of the snapshot.
        name: Path or URI of a folder, a file or a container; or a glob.
    """
    uri = (
        canonical(name) if is_remote(name) else uri_from_path(os.path.abspath(path_from_uri(name)))
    )
    if {name, uri} & set(manifest.get("request", {}).get("sources", ())):
        return True
    start = plain_name(uri).rstrip("/")
    below = start + "/"
    for line in snapshot.files_of(manifest, "ledger"):
        with pq.ParquetFile(store.parquet(line["path"])) as file:
            for group in range(file.num_row_groups):
                if not _reaches(file.metadata.row_group(group), start):
                    continue
                rows = file.read_row_group(group, columns=["uri", "status"])
                living = rows.filter(pc.not_equal(rows["status"], "removed"))["uri"]
                if _any(living, uri, below):
                    return True
    return False


def _reaches(group: pq.RowGroupMetaData, start: str) -> bool:
    """Whether names that begin so may be in a row group; most ledgers are sorted by name."""
    columns = (group.column(index) for index in range(group.num_columns))
    known = next(one for one in columns if one.path_in_schema == "uri").statistics
    if known is None or not known.has_min_max:
        return True
    return bool(known.max >= start and known.min[: len(start)] <= start)


def _any(uris: pa.ChunkedArray, uri: str, below: str) -> bool:
    found = pc.equal(uris, uri)
    for start in (below, f"{uri}#"):
        found = pc.or_(found, pc.starts_with(uris, start))
    return bool(pc.any(found).as_py())
