"""Large HEIC pictures decoded tile by tile, so that no more than one is there in full size.

libheif would hold all of the picture, in planes and as pixels. A telephone's picture is a grid of
tiles, and what is wanted of a large one is small: each tile is decoded as a picture of its own, and
reduced before the next.
"""

from __future__ import annotations

import io

from PIL import Image

from lookalike.images.heif_grid import Grid, tile_files
from lookalike.images.limits import ImageLimits
from lookalike.images.pixels import whole_factor
from lookalike.images.rejections import Rejected

_WORKING = 20  # bytes that decoding takes for each pixel of a tile


def reduced_by_tiles(
    data: bytes, found: Grid, limits: ImageLimits, min_side: int | None
) -> tuple[Image.Image, int]:
    """A picture reduced by a power of two, by box averages, both sides at least twice `min_side`.

    Returns:
        The picture, RGB, as it is before it is turned; and what it was reduced by.

    Raises:
        Rejected: outside the limits, or a tile of another size than it says.
    """
    from lookalike.images.heic import open_heic  # loads two large libraries

    factor, step = whole_factor(found.width, found.height, min_side), 1
    while (
        2 * step <= factor and found.tile_width % (2 * step) == found.tile_height % (2 * step) == 0
    ):
        step *= 2
    size = (-(-found.width // step), -(-found.height // step))
    need = len(data) + 11 * size[0] * size[1] + _WORKING * found.tile_width * found.tile_height
    what = f"{found.width} x {found.height} pixels (HEIC, by tiles)"
    limits.check_memory(need, what)
    whole = Image.new("RGB", size)
    for number, file in enumerate(tile_files(data, found)):
        left = number % found.columns * found.tile_width
        top = number // found.columns * found.tile_height
        if left >= found.width or top >= found.height:
            continue
        with open_heic(io.BytesIO(file)) as tile:
            if tile.size != (found.tile_width, found.tile_height):
                raise Rejected("corrupt", f"a tile of {tile.size[0]} x {tile.size[1]} pixels")
            tile.load()
            there = (min(tile.width, found.width - left), min(tile.height, found.height - top))
            part = tile.convert("RGB").crop((0, 0, *there)).reduce(step)
        whole.paste(part, (left // step, top // step))
    return whole, step
