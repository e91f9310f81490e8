"""`python -m benchmarks.shapes PHOTOS FOLDER`: pictures of which only the outline tells.

A kind is an outline: a closed curve around a middle, of six waves drawn at random. Each of its
pictures fills it with one colour and, faintly, a piece of some photograph, turned, moved, scaled
and squeezed a little, on an even ground of another colour, as signs and cut-outs are. Colours and
textures say nothing of the kind, and no outline of `learn/` is in `unseen/`, nor any photograph.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lookalike.images import preparing as images
from lookalike.sources.contents import Contents
from lookalike.sources.kinds import open_source

SIDE = 160
_APART, _FAINT = 80, 0.3  # between the colours, in one channel; of the photograph
_LEARN, _UNSEEN = (60, 30), (40, 15)  # kinds, and pictures of each
_WAVES = np.arange(2, 8)

Pixels = npt.NDArray[np.uint8]


def outline(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A kind: height and phase of each wave, (2, 6)."""
    heights = rng.normal(0, 0.5, len(_WAVES)) / np.sqrt(_WAVES)
    return np.stack([heights, rng.uniform(0, 2 * np.pi, len(_WAVES))])


def inside(kind: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """How much of each pixel an outline covers, (SIDE, SIDE), in one of its poses."""
    fine = 2 * SIDE
    along = (np.arange(fine) + 0.5) / fine * 2 - 1
    x, y = np.meshgrid(along, along)
    x, y = x - rng.uniform(-0.15, 0.15), y - rng.uniform(-0.15, 0.15)
    turn, squeeze = rng.uniform(-0.35, 0.35), np.exp(rng.uniform(-0.15, 0.15))
    x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    x, y = x * squeeze, y / squeeze
    around = np.arange(360) * 2 * np.pi / 360
    reach = np.maximum(0.15, 1 + (kind[0] * np.cos(np.outer(around, _WAVES) + kind[1])).sum(axis=1))
    reach *= rng.uniform(0.65, 0.85) / reach.max()
    angle = np.arctan2(y, x) % (2 * np.pi)
    covered = np.hypot(x, y) < np.interp(angle, [*around, 2 * np.pi], [*reach, reach[0]])
    share: npt.NDArray[np.float64] = covered.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3))
    return share


def draw(
    kind: npt.NDArray[np.float64], photographs: list[Pixels], rng: np.random.Generator
) -> Pixels:
    """One picture of a kind, (SIDE, SIDE, 3)."""
    share = inside(kind, rng)[:, :, None]
    within = _piece(photographs[int(rng.integers(len(photographs)))], rng)
    figure, ground = rng.uniform(0, 255, (2, 3))
    while np.abs(figure - ground).max() < _APART:
        ground = rng.uniform(0, 255, 3)
    filled = figure + _FAINT * (within - within.mean(axis=(0, 1)))
    mixed: Pixels = np.clip(share * filled + (1 - share) * ground, 0, 255).astype(np.uint8)
    return mixed


def _piece(photograph: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = photograph.shape[:2]
    side = int(min(height, width) * rng.uniform(0.4, 0.9))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    cut = photograph[top : top + side, left : left + side]
    return images.resize(np.ascontiguousarray(cut), (SIDE, SIDE))


def main(photographs: str, folder: str) -> None:
    """Write both sets."""
    found = []
    with Contents() as contents:
        for file in open_source(photographs).files(print):
            found.append(images.decode(contents.read(file), file.uri, min_side=SIDE).pixels)
    half = len(found) // 2
    rng = np.random.default_rng(0)
    for name, (kinds, each), some in (
        ("learn", _LEARN, found[:half]),
        ("unseen", _UNSEEN, found[half:]),
    ):
        for number in range(kinds):
            kind, place = outline(rng), Path(folder) / name / f"{number:02d}"
            place.mkdir(parents=True)
            for one in range(each):
                jpeg = images.thumbnail_jpeg(draw(kind, some, rng), SIDE)
                (place / f"{one:02d}.jpg").write_bytes(jpeg)


if __name__ == "__main__":
    main(*sys.argv[1:])
