"""Thumbnails as they are asked for, and originals: of pictures that the snapshot lists, by row.

What a request says is a row's number. The name of the file comes from the snapshot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Lock

from lookalike.images.thumbnails import SIDE, find_soon, thumbnail_decoder, thumbnail_of
from lookalike.outcomes import Decoded, Failed
from lookalike.records import SourceFile
from lookalike.serve.decoders import Decoders
from lookalike.serve.limits import Limits, RefusedError
from lookalike.sources.contents import Contents, claimed_name
from lookalike.sources.locating import Locator
from lookalike.sources.sniff import CAMERA_FORMATS, READ_FORMATS, identify
from lookalike.store.recent import Recent

SIDES = (SIDE, 1024)
"""Of thumbnails: those of a list of results, and one picture to look at and mark a part of."""

_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "ICO": "image/x-icon",
    "TIFF": "image/tiff",
    "HEIC": "image/heic",
    "JPEG2000": "image/jp2",
}
_OTHER = "application/octet-stream"
_ENTRY = 200  # bytes of a failure that is kept
_PASSING = ("unreadable", "timed_out")  # may be another tomorrow


@dataclass(frozen=True)
class Original:
    """A file as it is."""

    data: bytes
    type: str
    name: str


class Thumbnails:
    """Small JPEGs of files, made when they are first asked for; threads may share one."""

    def __init__(self, limits: Limits, decoders: int) -> None:
        """Make them by so many decoders at a time."""
        counts = {SIDES[0]: decoders, SIDES[1]: 1}
        self._decoders = {
            side: Decoders(partial(thumbnail_decoder, side), count)
            for side, count in counts.items()
        }
        self._lock = Lock()  # of what follows
        self._known: Recent[tuple[str, int], bytes | str]
        self._known = Recent(limits.thumbnail_bytes, lambda one: len(one) + _ENTRY)
        self.made = self.kept = 0

    @property
    def size(self) -> int:
        """Bytes of all thumbnails that are kept."""
        with self._lock:
            return sum(len(one) for one in self._known.values.values())

    def start(self) -> None:
        """Start a decoder for each size, before the first picture is asked for."""
        for one in self._decoders.values():
            one.start()

    def of_row(self, uri: str, sha256: bytes | None, side: int) -> bytes:
        """A JPEG of a row's file, at most `side` pixels wide and high.

        Raises:
            RefusedError: The file is not there any more, or is no picture that can be shown.
        """
        key = sha256.hex() if sha256 else uri
        return self._of(key, side, lambda: find_soon(Locator(read_before=True), uri))

    def of_file(self, path: str, sha256: str, side: int) -> bytes:
        """The same of a file of our own, that was uploaded."""
        return self._of(sha256, side, lambda: SourceFile(path, -1, ""))

    def _of(self, key: str, side: int, find: Callable[[], SourceFile]) -> bytes:
        found = self._looked_up(key, side)
        if found is None:
            with self._decoders[side].one() as decoder:
                found = self._looked_up(key, side)  # another may have made it meanwhile
                if found is None:
                    file = find()
                    if file.problem:
                        raise RefusedError(404, f"there is no thumbnail: {file.problem}")
                    [outcome] = decoder.decode([file], once=False)
                    if isinstance(outcome, Decoded):
                        found, lasting = thumbnail_of(outcome), True
                    else:
                        assert isinstance(outcome, Failed)
                        found = ": ".join(filter(None, (outcome.reason, outcome.detail)))
                        lasting = outcome.reason not in _PASSING
                    with self._lock:
                        self.made += 1
                        if lasting:
                            self._known.put((key, side), found)
        if isinstance(found, str):
            raise RefusedError(404, f"there is no thumbnail: {found}")
        return found

    def _looked_up(self, key: str, side: int) -> bytes | str | None:
        with self._lock:
            found = self._known.get((key, side))
            self.kept += found is not None
            return found

    def close(self) -> None:
        """End the decoders."""
        for one in self._decoders.values():
            one.kill()


def original_of(uri: str, sha256: bytes | None, limits: Limits) -> Original:
    """A row's file as it is, where it still is the one that was indexed.

    Raises:
        RefusedError: It is not there any more, is another now, is no picture, or is too large.
    """
    file = find_soon(Locator(), uri)
    if file.problem:
        raise RefusedError(404, f"the file is not there: {file.problem}")
    if file.bytes > limits.original_bytes:
        raise RefusedError(
            422,
            f"the file has {file.bytes:,} bytes; {limits.original_bytes:,} at most are sent",
        )
    try:
        with Contents() as contents:
            data = contents.read(file, limits.original_bytes + 1 if file.bytes < 0 else None)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise RefusedError(404, f"the file cannot be read: {why}") from error
    if sha256 is not None and hashlib.sha256(data).digest() != sha256:
        raise RefusedError(410, "the file is another one now than the one that was indexed")
    kind = identify(data, claimed_name(file))
    if kind not in READ_FORMATS | CAMERA_FORMATS:  # a store of vectors may name anything
        raise RefusedError(422, "the file is no picture, and nothing else is sent")
    name = uri.rstrip("/").rpartition("/")[2].rpartition("#")[2]
    return Original(data, _TYPES.get(str(kind), _OTHER), name)
