"""Small pictures of some files for a page, within a time: what is not ready by then is left out.

Files are decoded by a process of their own (`lookalike.images.decoding`), and found and read in a
thread, so that neither a damaged file nor a share that hangs keeps the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from lookalike.images.decoding import Decoder
from lookalike.images.preparing import ImageLimits, resize, thumbnail_jpeg
from lookalike.outcomes import Decoded
from lookalike.records import SourceFile
from lookalike.sources.locating import Locator, split_uri
from lookalike.sources.looking_up import look_up

SIDE = 192
_TOGETHER = 8  # files that are found before the first of them is decoded
_MOST_CONTAINER = 256 << 20  # bytes of a tar shard or table that one member is looked for in
# Half a picture shows more than none, and a page waits for nobody.
_LIMITS = ImageLimits(
    max_pixels=1 << 26, max_bytes=64 << 20, max_memory=512 << 20, max_seconds=2, truncated="accept"
)


class Thumbnails:
    """A decoder for thumbnails, which is ended when they are made."""

    def __init__(self) -> None:
        self._decoder = Decoder([(SIDE, SIDE)], _LIMITS)

    def start(self) -> None:
        """Start the decoder now, beside what the caller does meanwhile."""
        self._decoder.start()

    def make(self, uris: Iterable[str], seconds: float) -> dict[str, bytes]:
        """JPEG files, at most SIDE pixels wide and high, of those files that it can be made of.

        Args:
            uris: As in a ledger, the most wanted first.
            seconds: When to be content with what there is.
        """
        made: dict[str, bytes] = {}
        over = threading.Event()

        def work() -> None:
            with suppress(Exception):  # a page does without those that are not made
                self._work(iter(dict.fromkeys(uris)), made, over)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join(seconds)
        over.set()  # it ends after the file it is at, which takes seconds at most
        return dict(made)

    def _work(self, uris: Iterator[str], made: dict[str, bytes], over: threading.Event) -> None:
        locator = Locator(read_before=True)
        with self._decoder as decoder:
            while not over.is_set() and (some := list(islice(uris, _TOGETHER))):
                files = [
                    file for uri in some if (file := _find(locator, uri)) and not over.is_set()
                ]
                for outcome in decoder.decode(files, once=False):
                    if over.is_set():
                        return
                    if isinstance(outcome, Decoded):
                        made[outcome.file.uri] = _thumbnail(outcome)


def _find(locator: Locator, uri: str) -> SourceFile | None:
    """The listed file of that name; None where there is none, or it takes long to find."""
    container, _ = split_uri(uri)
    if container and look_up(container).bytes > _MOST_CONTAINER:
        return None
    file = locator.find(uri)
    return None if file.problem else file


def _thumbnail(outcome: Decoded) -> bytes:
    """The picture in its own shape again: models get squares."""
    longest = max(outcome.width, outcome.height)
    height, width = (
        max(1, round(SIDE * side / longest)) for side in (outcome.height, outcome.width)
    )
    return thumbnail_jpeg(resize(outcome.inputs[0], (height, width)), SIDE)
