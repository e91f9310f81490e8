"""From a name in a result back to the file: URIs of container members and rows taken apart."""

from __future__ import annotations

from lookalike.records import SourceFile
from lookalike.sources.containers import is_table, is_tar
from lookalike.sources.looking_up import look_up
from lookalike.sources.tar_shards import members
from lookalike.store import storage
from lookalike.store.s3_uri import is_s3


def split_uri(uri: str) -> tuple[str, str]:
    """Container and the name in it, ("", uri) for a file of its own; told from the name alone."""
    position = uri.find("#")
    while position >= 0:
        container = uri[:position]
        if is_tar(container) or is_table(container):
            return container, uri[position + 1 :]
        position = uri.find("#", position + 1)
    return "", uri


class Locator:
    """Finds listed files again by their URIs; remembers the members of the last tar shard."""

    def __init__(self, read_before: bool = False) -> None:
        """Begin; of objects that a run has read before, sizes and all are not asked for again."""
        self._read_before = read_before
        self._container = ""
        self._members: dict[str, SourceFile] = {}

    def find(self, uri: str) -> SourceFile:
        """The file of that name, or a row with the problem that it cannot be had.

        Going through a tar's headers, which for a gzipped one means through all of it.
        """
        container, name = split_uri(uri)
        if not container and self._read_before and is_s3(uri):  # reading says if it is gone
            return SourceFile(uri, -1, "")
        if not container or (not storage.is_remote(uri) and not look_up(uri).problem):
            return look_up(uri)
        found = look_up(container)
        if found.problem:
            return SourceFile(uri, -1, "", found.problem)
        if is_table(container):
            if not (name.isascii() and name.isdigit()):
                return SourceFile(uri, -1, "", "no such row")
            version = f"{found.version}+{name}"
            return SourceFile(uri, -1, version, container=container, offset=int(name))
        if container != self._container:
            self._members = {file.uri: file for file in members(found)}
            self._container = container
        return self._members.get(uri) or SourceFile(uri, -1, "", "no such member")
