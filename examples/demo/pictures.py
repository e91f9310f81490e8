"""The sample pictures.

    DIR/pictures/<group>/*.jpg    ten groups of thirty-six painted scenes, to be indexed
    DIR/queries/*.jpg             two more of every group, held out, to search with

Among the pictures are the cases a real pile of files holds: two exact copies under other names, a
half-downloaded file, a text file, a name with spaces and an accent, a picture stored rotated, a PNG
with transparency.

Every picture has a random generator of its own, seeded by group and number, so the same versions of
numpy and Pillow draw the same bytes, and any one file can be drawn alone. A second run draws only
what is missing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from examples.demo import scenes
from lookalike.errors import RequestError

VERSION = 2  # a folder drawn by another version is drawn anew
MARKER = ".lookalike-demo"
PICTURES_PER_GROUP = 36
QUERIES_PER_GROUP = 2
SIZES = ((432, 324), (432, 324), (480, 320), (448, 336), (324, 432))

SCENES: dict[str, Callable[[scenes.Canvas], None]] = {
    scene.__name__: scene
    for scene in (
        scenes.balloons,
        scenes.city,
        scenes.flowers,
        scenes.forest,
        scenes.galaxy,
        scenes.mountains,
        scenes.seascape,
        scenes.tiles,
        scenes.underwater,
        scenes.wood,
    )
}


def draw(group: str, number: int) -> tuple[Image.Image, int]:
    """Scene `number` of a group, and the JPEG quality it is to be stored with."""
    rng = np.random.default_rng([VERSION, list(SCENES).index(group), number])
    canvas = scenes.Canvas(rng, *SIZES[rng.integers(len(SIZES))])
    quality = int(rng.integers(74, 94))
    SCENES[group](canvas)
    return canvas.image(), quality


def encode(group: str, number: int) -> bytes:
    """The JPEG file of a scene."""
    image, quality = draw(group, number)
    return to_bytes(image, "JPEG", quality=quality)


def to_bytes(image: Image.Image, format: str, **options: object) -> bytes:
    """The image as a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def rotated(group: str, number: int) -> bytes:
    """The scene lying on its side, with the EXIF orientation (6) that sets it upright."""
    image, quality = draw(group, number)
    exif = Image.Exif()
    exif[0x0112] = 6
    return to_bytes(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=quality, exif=exif)


def vignette(group: str, number: int) -> bytes:
    """The scene as a PNG whose corners fade to transparent."""
    image, _ = draw(group, number)
    w, h = image.size
    far = np.hypot(np.linspace(-1, 1, w)[None, :], np.linspace(-1, 1, h)[:, None])
    alpha = scenes.smooth(1.25 - far, 0, 0.25)
    image.putalpha(Image.fromarray((alpha * 255).astype(np.uint8)))
    return to_bytes(image, "PNG")


NOTES = """A text file among the pictures, as real folders have them.
The ledger lists it as ignored: neither its content nor its name says image.
"""

# Files that stand in for a picture of the group, or beside them: name -> how its bytes are made.
INSTEAD: dict[tuple[str, int], tuple[str, Callable[[], bytes]]] = {
    ("seascape", 7): ("Été à la mer.jpg", partial(encode, "seascape", 7)),
    ("mountains", 4): ("mountains-04-rotated.jpg", partial(rotated, "mountains", 4)),
    ("balloons", 11): ("balloons-11-alpha.png", partial(vignette, "balloons", 11)),
}
BESIDE: dict[str, Callable[[], bytes]] = {
    "pictures/forest/copy of forest-02.jpg": partial(encode, "forest", 2),
    "pictures/galaxy/galaxy-05 (1).jpg": partial(encode, "galaxy", 5),
    "pictures/city/city-half-downloaded.jpg": lambda: encode("city", 9)[:9000],
    "pictures/notes.txt": NOTES.encode,
}


def recipes() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Every file of the demo: its path under DIR, and the function that makes its bytes."""
    for group in SCENES:
        for number in range(PICTURES_PER_GROUP):
            plain = f"{group}-{number:02d}.jpg", partial(encode, group, number)
            name, make = INSTEAD.get((group, number), plain)
            yield f"pictures/{group}/{name}", make
        for number in range(PICTURES_PER_GROUP, PICTURES_PER_GROUP + QUERIES_PER_GROUP):
            yield f"queries/{group}-{number}.jpg", partial(encode, group, number)
    yield from BESIDE.items()


def claim(folder: Path) -> bool:
    """Makes the folder ours with a marker file; True if this version has drawn all of it before.

    Raises:
        RequestError: It is no folder, or holds files and no marker, so they are not ours to touch.
    """
    marker = folder / MARKER
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder} is a file, and the demo needs a folder: name another")
    if not marker.exists():
        if folder.exists() and any(folder.iterdir()):
            raise RequestError(
                f"{folder} holds files that the demo did not make (it has no {MARKER}): "
                "name a new or an empty folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
    return marker.read_text() == f"{VERSION}\n"


def write_demo(folder: Path) -> int:
    """Draws the demo, or what is missing of it, and returns how many files were written.

    Raises:
        RequestError: The folder holds files of somebody else.
    """
    complete = claim(folder)
    written = 0
    for path, make in recipes():
        target = folder / path
        if complete and target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(make())
        written += 1
    (folder / MARKER).write_text(f"{VERSION}\n")  # last: a run cut short starts over
    return written
