"""What `--images` names: folders, globs, single files, manifests, containers; is it sound?"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable

import pyarrow as pa

from lookalike.errors import RequestError, UnreachableError, one_line, out_of_reach
from lookalike.sources import image_tables, tar_shards
from lookalike.sources.containers import is_table, is_tar
from lookalike.sources.globs import GLOB
from lookalike.sources.looking_up import look_up
from lookalike.sources.selection import Selection
from lookalike.sources.source import MANIFESTS, Source
from lookalike.store import storage
from lookalike.store.columns import merge_columns

_ALL = Selection()
_UNPACK = "such archives are not read; unpack it and name the folder, or make a .tar of it"
_AS_CSV = "such lists are not read; write it as .csv or .parquet, with a column uri"
_NOT_READ = {
    **dict.fromkeys((".zip", ".7z", ".rar"), _UNPACK),
    **dict.fromkeys((".json", ".jsonl", ".ndjson", ".tsv", ".txt"), _AS_CSV),
}


def open_source(
    spec: str,
    selection: Selection = _ALL,
    is_known: Callable[[str], bool] = lambda name: False,
) -> Source:
    """Check one SRC: does it exist, what is it, and can its metadata be told.

    Args:
        spec: As the user wrote it.
        selection: What of it is taken.
        is_known: Whether an earlier run listed something of that name, or below it. What is away
            or cannot be read then is a source that is "lost" for tonight.

    Raises:
        RequestError: There is no such thing, or it is of a kind that is not read.
        UnreachableError: Nobody can tell now.
    """
    if not spec:
        raise RequestError("an empty source was given; name a folder, a glob, a manifest or a file")
    try:
        source = _open(spec, selection, is_known)
    except UnreachableError as error:
        if not is_known(spec):
            raise
        return Source(spec, "lost", problem=one_line(error))
    if source.kind == "absent":
        if not is_known(spec):
            raise RequestError(f"{spec}: no such file or folder")
        return Source(spec, "lost", problem="no such file or folder")
    if source.kind == "glob" and kind_of(root := source.root) == "absent" and is_known(root):
        return Source(spec, "lost", problem="no such folder")
    return source


def _open(spec: str, selection: Selection, is_known: Callable[[str], bool]) -> Source:
    kind = kind_of(spec)
    if kind == "absent":
        is_glob = GLOB & set(storage.plain_name(spec))
        source = Source(spec, "glob" if is_glob else "absent", selection, known=is_known(spec))
        if source.names_manifests:
            _ = source.metadata  # they are checked as it is told
        return source
    if kind == "other":
        raise RequestError(f"{spec}: neither a file nor a folder")
    if kind == "file" and is_tar(spec):
        tar_shards.check_tar(look_up(spec))
        return Source(spec, "tar", selection)
    if kind == "file" and is_table(spec) and image_tables.find_columns(spec):
        return Source(spec, "table", selection)
    if kind == "file" and storage.plain_name(spec).lower().endswith(MANIFESTS):
        source = Source(spec, "manifest", selection, known=is_known(spec))
        _ = source.metadata  # it is checked as it is told
        return source
    return Source(spec, kind, selection)


def advice_on(specs: Iterable[str]) -> str:
    """What to do about sources that are files of a kind which is not read, "; …"; "" for none."""
    return "".join(
        f"; {spec}: {advice}"
        for spec in specs
        for ending, advice in _NOT_READ.items()
        if storage.plain_name(spec).lower().endswith(ending)
    )


def metadata_schema(sources: list[Source]) -> pa.Schema:
    """Metadata columns of all sources together; types that do not agree become strings."""
    return merge_columns(source.metadata for source in sources)


def kind_of(spec: str) -> str:
    """What a path or URI is: "file", "folder", "absent" or "other"."""
    if storage.is_remote(spec):
        return storage.remote_info(spec, folders=True)[0]
    try:
        mode = os.stat(storage.path_from_uri(spec)).st_mode
    except FileNotFoundError:
        return "absent"
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and out_of_reach(error):
            reason = error.strerror or one_line(error)
            raise UnreachableError(f"{spec}: cannot be reached: {reason}") from error
        raise RequestError(f"{spec}: {one_line(error)}") from error
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "other"
