"""The bytes of listed files: from files of their own, out of tar shards and tables of images."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from lookalike.errors import RequestError, one_line
from lookalike.records import SourceFile
from lookalike.sources.containers import is_table
from lookalike.sources.looking_up import look_up
from lookalike.sources.tar_streams import TarStream, open_tar
from lookalike.store import storage


class CutShortError(OSError):
    """A member ends before the size that its container announced."""


class Contents(AbstractContextManager["Contents"]):
    """Reads listed files one after another, keeping the container of the last one open.

    Reading a container in the order in which it was listed costs one pass over it.
    """

    def __init__(self) -> None:
        self._uri = ""
        self._container: _Container | None = None

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the container that is open."""
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def read(self, file: SourceFile, limit: int | None = None) -> bytes:
        """Read a whole file, or its first `limit` bytes.

        Raises:
            CutShortError: It ends before its announced size.
            OSError: It cannot be opened or read, or its container changed since it was listed.
        """
        if not file.container:
            return storage.read_bytes(file.uri, limit)
        try:
            return self._open(file).read(file, limit)
        except RequestError as error:
            raise OSError(one_line(error)) from error

    def _open(self, file: SourceFile) -> _Container:
        if self._container is None or self._uri != file.container:
            self.close()
            found = look_up(file.container)
            if found.problem:
                raise OSError(found.problem)
            if found.version != file.version.rpartition("+")[0]:
                raise OSError("the file it lies in changed since it was listed")
            self._container = _reader(file.container)
            self._uri = file.container
        return self._container


def claimed_name(file: SourceFile) -> str:
    """A name whose suffix says what the file claims to be.

    A row of a table of images claims to be one whatever its URI; of a tar member's URI, an offset
    that was added to tell equal names apart is no part of the name.
    """
    if not file.container:  # s3://bucket/a.jpg?region=…
        return storage.plain_name(file.uri)
    if is_table(file.container):
        return f"{file.uri}.jpg"
    name, added = file.uri, f"@{file.offset}"
    while name.endswith(added):
        name = name.removesuffix(added)
    return name


def _reader(container: str) -> _Container:
    if not is_table(container):
        return _TarReader(container)
    from lookalike.sources.image_tables import TableReader  # it loads what Parquet takes

    return TableReader(container)


class _Container(Protocol):
    def read(self, file: SourceFile, limit: int | None = None) -> bytes: ...

    def close(self) -> None: ...


class _TarReader:
    """Members of a tar; the last one read is kept, since going back in a gzipped tar is dear."""

    def __init__(self, uri: str) -> None:
        self._stream: TarStream = open_tar(uri)
        self._offset = -1
        self._data = b""

    def close(self) -> None:
        self._stream.close()

    def read(self, file: SourceFile, limit: int | None = None) -> bytes:
        size = file.bytes if limit is None else min(limit, file.bytes)
        if file.offset != self._offset:
            self._offset, self._data = file.offset, b""
        have, stream = len(self._data), self._stream
        if have < size:
            stream.seek(file.offset + have)
            there = have + stream.at_most(size - have)
            if there == size:
                self._data += stream.read(size - have)
                there = len(self._data)
            if there < size:
                why = f" ({stream.fault})" if stream.fault else ""
                raise CutShortError(f"{there:,} of {file.bytes:,} bytes are in the tar{why}")
        return self._data[:size]
