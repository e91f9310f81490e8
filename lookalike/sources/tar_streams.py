"""The bytes of a tar, plain or gzipped, local or remote, read forward from any position.

Neither stream raises where the bytes end too early: `read` gives what there is, and `fault` says
why there is no more. A scan can so list what lies before a cut, and a reader read it.
"""

from __future__ import annotations

import io
import zlib
from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Any

from lookalike.store import storage

_GZIP = b"\x1f\x8b"
_INPUT = 16 << 10  # what a damaged place in a gzip file takes with it, at most
_OUTPUT = 64 << 10
_REMOTE_BUFFER = 1 << 20  # one request reads the headers of several members


class TarStream(AbstractContextManager["TarStream"]):
    """A tar's bytes, as both kinds of stream give them.

    Attributes:
        position: Of the next byte, in the unpacked tar.
        fault: Why the bytes ended early; "" if they did not, or just ended.
        seekable: Whether going to a position costs no reading of what lies before it.
    """

    seekable = False

    def __init__(self, file: Any) -> None:
        self._file = file
        self.position = 0
        self.fault = ""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only where the tar ends."""

    @abstractmethod
    def at_most(self, size: int) -> int:
        """How many of the next `size` bytes there can be, told without reading."""

    @abstractmethod
    def skip(self, size: int) -> int:
        """Pass over bytes; returns how many there were."""

    @abstractmethod
    def seek(self, position: int) -> None:
        """Go to a position."""

    def close(self) -> None:
        """Close the file below."""
        self._file.close()

    def __exit__(self, *error: object) -> None:
        self.close()


def open_tar(uri: str) -> TarStream:
    """Open a tar, told from a gzipped one by its first bytes.

    Raises:
        OSError: It cannot be opened or read.
        RequestError: Its file system cannot be opened.
    """
    file = _open(uri)
    try:
        gzipped = file.read(2) == _GZIP
        file.seek(0)
        return _Gzip(file) if gzipped else _Plain(file)
    except BaseException:
        file.close()
        raise


def _open(uri: str) -> Any:
    file = storage.open_binary(uri)
    return io.BufferedReader(file, _REMOTE_BUFFER) if storage.is_remote(uri) else file


class _Plain(TarStream):
    """A tar as it is."""

    seekable = True

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._end: int = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read(self, size: int) -> bytes:
        data: bytes = self._file.read(self.at_most(size))
        self.position += len(data)
        return data

    def at_most(self, size: int) -> int:
        return max(0, min(size, self._end - self.position))

    def skip(self, size: int) -> int:
        size = self.at_most(size)
        if size:
            self.seek(self.position + size)
        return size

    def seek(self, position: int) -> None:
        self._file.seek(position)
        self.position = position


class _Gzip(TarStream):
    """A gzipped tar, unpacked as it is read; going back begins anew."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self.position, self.fault = 0, ""
        self._unpacker = zlib.decompressobj(31)
        self._input = self._output = b""

    def read(self, size: int) -> bytes:
        pieces = []
        while size and (self._output or self._unpack()):
            pieces.append(self._output[:size])
            self._output = self._output[size:]
            size -= len(pieces[-1])
        data = b"".join(pieces)
        self.position += len(data)
        return data

    def at_most(self, size: int) -> int:
        return size

    def skip(self, size: int) -> int:
        left = size
        while left and (data := self.read(min(left, _OUTPUT))):
            left -= len(data)
        return size - left

    def seek(self, position: int) -> None:
        if position < self.position:
            self._restart()
        self.skip(position - self.position)

    def _unpack(self) -> bool:
        """Fill the output; in steps of its own, so that a fault is always met at the same byte."""
        while not self.fault and not self._output:
            if self._unpacker.eof and not self._next_stream():
                return False
            if not self._input:
                self._input = self._file.read(_INPUT)
            at_end = not self._input
            try:
                self._output = self._unpacker.decompress(self._input, _OUTPUT)
            except zlib.error as error:
                self.fault = f"gzip: {error}"
                return False
            self._input = self._unpacker.unconsumed_tail
            if at_end and not self._output and not self._unpacker.eof:
                self.fault = "gzip: the file ends early"
        return bool(self._output)

    def _next_stream(self) -> bool:
        """Several gzip streams may follow each other, and zeros the last one."""
        rest = self._unpacker.unused_data
        while not (rest := rest.lstrip(b"\0")):
            if not (rest := self._file.read(_INPUT)):
                return False
        self._input, self._unpacker = rest, zlib.decompressobj(31)
        return True
