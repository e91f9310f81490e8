"""Pictures that were uploaded: files of a folder of our own, by sha256, as many as there is room.

So a later request, of another part of the picture or with other weights, names it and need not send
it again. Those used longest ago make room; all go with the server.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import OrderedDict
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock

from lookalike.serve.limits import RefusedError


class Uploads:
    """A bounded folder of files; threads may share one."""

    def __init__(self, limit: int) -> None:
        """Prepare a folder for `limit` bytes."""
        self._folder = Path(mkdtemp(prefix="lookalike-serve-"))
        self._limit, self._lock = limit, Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes of all pictures that are kept."""
        with self._lock:
            return sum(self._sizes.values())

    def put(self, data: bytes) -> str:
        """Keep a picture; returns its sha256, by which `path` finds it.

        Raises:
            RefusedError: It is empty.
        """
        if not data:
            raise RefusedError(422, "a picture has no bytes")
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            if digest not in self._sizes:
                (self._folder / digest).write_bytes(data)
            self._sizes[digest] = len(data)
            self._sizes.move_to_end(digest)
            while sum(self._sizes.values()) > self._limit and len(self._sizes) > 1:
                oldest, _ = self._sizes.popitem(last=False)
                (self._folder / oldest).unlink(missing_ok=True)
        return digest

    def path(self, digest: str) -> Path:
        """The file of a picture, which stays for now.

        Raises:
            RefusedError: It is not kept, or not any more.
        """
        with self._lock:
            if digest not in self._sizes:
                raise RefusedError(
                    404, f"the picture {digest[:12]}… is not kept here any more; upload it again"
                )
            self._sizes.move_to_end(digest)
            return self._folder / digest

    def close(self) -> None:
        """Remove them all."""
        with self._lock:
            self._sizes.clear()
            shutil.rmtree(self._folder, ignore_errors=True)
