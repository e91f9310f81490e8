"""Labels where nobody gave any: a picture and altered copies of it are of one kind.

Other pictures of the store lie beside them as wrong answers; those that are near an altered copy
count, as neighbours do in a search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.images.preparing import decode, resize
from lookalike.images.rejections import NotAnImage, Rejected
from lookalike.learning.labelled import OTHER, Labelled, sample_rows, sample_vectors
from lookalike.models.embedder import Embedder
from lookalike.sources.contents import Contents, claimed_name
from lookalike.sources.locating import Locator
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store

PICTURES = 300  # read by default
COPIES = 6  # altered ones of each
_OTHERS = 8000
_FEWEST = 20

Pixels = npt.NDArray[np.uint8]


def read_altered(
    store: Store,
    manifest: Manifest,
    embedder: Embedder,
    pictures: int = PICTURES,
    say: Callable[[str], None] = lambda _: None,
) -> Labelled:
    """Embed a sample of a store's pictures, and altered copies of them.

    Raises:
        RequestError: Too few of them can be read now.
    """
    if pictures < _FEWEST:
        raise RequestError(f"--sample {pictures}: {_FEWEST} pictures at least are needed")
    names = sample_rows(store, manifest, pictures)
    vectors, labels = [], []
    locator, contents = Locator(read_before=True), Contents()
    missed = 0
    for number, name in enumerate(names):
        pixels = _read(name, locator, contents, embedder.min_side)
        if pixels is None:
            missed += 1
            continue
        found, usable = embedder.embed([embedder.prepare(one) for one in copies(pixels, number)])
        vectors.append(found[usable])
        labels += [number] * int(usable.sum())
    if missed:
        say(f"{missed:,} of {len(names):,} pictures cannot be read now and are left out")
    if len(names) - missed < _FEWEST:
        raise RequestError(
            f"{store}: {len(names) - missed:,} of its pictures can be read now, and {_FEWEST} are "
            "needed to learn from; see that their files are where they were, or give --labels"
        )
    others = sample_vectors(store, manifest, _OTHERS, set(names))
    if len(others):
        vectors.append(others)
        labels += [OTHER] * len(others)
    return Labelled(np.concatenate(vectors), np.array(labels, dtype=np.int64), len(names) - missed)


def _read(name: str, locator: Locator, contents: Contents, min_side: int) -> Pixels | None:
    file = locator.find(name)
    if file.problem:
        return None
    try:
        pixels: Pixels = decode(contents.read(file), claimed_name(file), min_side=min_side).pixels
    except (OSError, Rejected, NotAnImage):
        return None
    return pixels


def copies(pixels: Pixels, seed: int) -> Iterator[Pixels]:
    """A picture (h, w, 3) and COPIES altered ones, the same for the same seed."""
    rng = np.random.default_rng(seed)
    yield pixels
    yield _cropped(pixels, 0.8, rng)
    yield _cropped(pixels, 0.6, rng)
    yield pixels[:, ::-1]
    yield _brightened(pixels, rng.uniform(0.6, 0.8))
    yield _brightened(pixels, rng.uniform(1.25, 1.5))
    yield _coarsened(pixels, 4)


def _cropped(pixels: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    rows, columns = max(1, round(height * share)), max(1, round(width * share))
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    return pixels[top : top + rows, left : left + columns]


def _brightened(pixels: Pixels, factor: float) -> Pixels:
    found: Pixels = np.clip(pixels * factor, 0, 255).astype(np.uint8)
    return found


def _coarsened(pixels: Pixels, by: int) -> Pixels:
    height, width = pixels.shape[:2]
    small = resize(np.ascontiguousarray(pixels), (max(1, height // by), max(1, width // by)))
    return resize(small, (height, width))
