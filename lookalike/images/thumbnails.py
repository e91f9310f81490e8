"""Small pictures of some files for a page, within a time: what is not ready by then is left out.

Files are decoded by a process of their own (`lookalike.images.decoding`), and found and read in a
thread, so that neither a damaged file nor a share that hangs keeps the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from lookalike.images.decoding import Decoder
from lookalike.images.limits import ImageLimits
from lookalike.images.preparing import resize, thumbnail_jpeg
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
        self._decoder = thumbnail_decoder(SIDE)

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
                files = [find_soon(locator, uri) for uri in some if not over.is_set()]
                there = [file for file in files if not file.problem]
                for outcome in decoder.decode(there, once=False):
                    if over.is_set():
                        return
                    if isinstance(outcome, Decoded):
                        made[outcome.file.uri] = thumbnail_of(outcome)


def thumbnail_decoder(side: int) -> Decoder:
    """What decodes pictures for `thumbnail_of`, to squares of such a side."""
    return Decoder([(side, side)], _LIMITS)


def find_soon(locator: Locator, uri: str) -> SourceFile:
    """The listed file of that name; with a problem where it is not there, or takes long to find."""
    container, _ = split_uri(uri)
    if container and (found := look_up(container)).bytes > _MOST_CONTAINER:
        why = f"it lies in a file of more than {_MOST_CONTAINER >> 20} MiB"
        return replace(found, uri=uri, problem=f"{why}, which is not looked through")
    return locator.find(uri)


def thumbnail_of(outcome: Decoded) -> bytes:
    """A JPEG of the picture in its own shape again: models get squares."""
    side, longest = outcome.inputs[0].shape[0], max(outcome.width, outcome.height)
    height, width = (max(1, round(side * one / longest)) for one in (outcome.height, outcome.width))
    return thumbnail_jpeg(resize(outcome.inputs[0], (height, width)), side)
