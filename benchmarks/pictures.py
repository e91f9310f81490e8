"""The pictures that the benchmarks use: somebody's, or drawn ones."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median

from examples.demo.pictures import recipes
from lookalike.errors import RequestError
from lookalike.images import preparing as images
from lookalike.images.rejections import NotAnImage, Rejected
from lookalike.sources.contents import Contents
from lookalike.sources.kinds import open_source

COMMON = ("JPEG", "PNG")
"""Formats that every way of reading pictures here knows."""

_DRAWN = 180
_SIZES = ((32, 32),)  # of the decoding that tells whether a picture can be used


@dataclass
class Gathered:
    """Pictures with different bytes in one folder.

    Attributes:
        paths: Of the pictures, in the order of their names.
        formats: How many there are of each format.
        sizes: (width, height) of each.
    """

    paths: list[Path] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def describe(self) -> str:
        """One line: "1,990 JPEG, 10 PNG, 75x56 to 2400x1600, median 0.19 megapixels"."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.formats.most_common())
        ordered = sorted(self.sizes, key=lambda size: size[0] * size[1])
        ends = [f"{width}x{height}" for width, height in (ordered[0], ordered[-1])]
        middle = median(width * height for width, height in ordered) / 1e6
        return f"{kinds}, {' to '.join(dict.fromkeys(ends))}, median {middle:.2g} megapixels"


def gather(source: str | None, count: int, folder: Path, repeat: bool = True) -> Gathered:
    """Put `count` pictures with different bytes into one folder: the source's, or drawn ones.

    Where there are fewer they are repeated, a few bytes of their own after the end of each: another
    content, the same pixels; unless `repeat` is false. What cannot be read is left out, and so is
    what is of none of the COMMON formats.

    Raises:
        RequestError: There is no picture of these formats.
    """
    folder.mkdir(parents=True)
    usable = []
    for suffix, data in _originals(source, count):
        try:
            picture = images.prepare(data + b"\0bench", suffix, sizes=_SIZES)
        except (Rejected, NotAnImage):
            continue
        if picture.format in COMMON:
            usable.append((suffix, data, picture.format, (picture.width, picture.height)))
    if not usable:
        kinds = " or ".join(COMMON)
        raise RequestError(f"{source}: no picture there that can be decoded and is {kinds}")
    gathered = Gathered()
    for number in range(count if repeat else len(usable)):
        suffix, data, kind, size = usable[number % len(usable)]
        gathered.paths.append(folder / f"{number:06d}{suffix}")
        gathered.paths[-1].write_bytes(data + b"\0" + str(number).encode())
        gathered.formats[kind] += 1
        gathered.sizes.append(size)
    return gathered


def _originals(source: str | None, count: int) -> list[tuple[str, bytes]]:
    """(suffix, bytes) of the source's first files, or of drawn pictures."""
    if source is None:
        drawn = [one for one in recipes() if one[0].startswith("pictures/")][::2][:_DRAWN]
        return [(Path(name).suffix, make()) for name, make in drawn[:count]]
    originals = []
    with Contents() as contents:
        for file in islice(open_source(source).files(lambda line: None), count):
            if not file.problem:
                with suppress(OSError):
                    originals.append((Path(file.uri).suffix, contents.read(file)))
    return originals
