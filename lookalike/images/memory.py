"""What decoding a file takes, told from its header."""

from __future__ import annotations

from PIL import GifImagePlugin, Image, TiffImagePlugin

from lookalike.images.containers import jpeg2000_size
from lookalike.images.jpeg_frames import jpeg_frame
from lookalike.images.limits import ImageLimits
from lookalike.images.pixels import whole_factor

# What decoders allocate besides Pillow's image and ours, in bytes a pixel, as measured.
_WORKING = {
    "WEBP": 14,  # the animation decoder holds several canvases
    "AVIF": 14,  # planes of up to 16 bits in decoder and converter, then RGBA, then its copy
    "HEIC": 14,
    "ICO": 12,  # the bitmap, its mask, and both together
}

_ORIENTATION, _BITS, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 274, 258, 278, 322, 323


def check_size(width: int, height: int, kind: str, limits: ImageLimits) -> None:
    """Refuse what a decoder that allocates when opened would allocate."""
    limits.check_pixels(width, height)
    need = width * height * (_WORKING[kind] + 4)
    limits.check_memory(need, f"{width} x {height} pixels ({kind})")


def memory(image: Image.Image, kind: str, data: bytes, min_side: int | None) -> int:
    """An upper estimate, from an opened image's header, of the bytes that decoding allocates."""
    width, height = image.size
    pixels = width * height
    stored = {"1": 1, "L": 1, "P": 1}.get(image.mode, 2 if image.mode.startswith("I;16") else 4)
    factor = whole_factor(width, height, min_side)
    # the result's array, and the picture it is made of unless that is the decoded one itself
    simple = image.mode in ("RGB", "L") and factor == 1
    result = 3 / factor**2 + (0 if simple else 4 / factor**2)
    rows = 16 * height  # Pillow's row pointers: they matter for a picture one pixel wide
    if (
        isinstance(image, GifImagePlugin.GifImageFile)
        and image.tile
        and image.tile[0].extents != (0, 0, *image.size)
    ):
        stored += 6  # a copy, with what is transparent
    if kind == "JPEG":
        frame = jpeg_frame(data)
        kept = frame.coefficients if frame else 2.0 * len(image.getbands())
        draft = max(s for s in (1, 2, 4, 8) if s <= factor) if frame and frame.reducible else 1
        line = 64 * width * len(image.getbands())  # a few rows of blocks, and of their samples
        return int(pixels * (kept + stored / draft**2 + result)) + rows + line
    if kind == "JPEG2000":
        # OpenJPEG holds a tile as 32-bit integers, and the codestream's size need not be the box's
        across, down, components, bits = jpeg2000_size(data) or (width, height, 4, 8)
        per_pixel = components * (5 + (bits + 7) // 8)
        return int(across * down * per_pixel + pixels * (stored + result)) + rows
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        bits = tags.get(_BITS, (8,))
        sample = max(1, sum(bits if isinstance(bits, tuple) else (bits,)) // 8)
        strip = width * min(height, int(tags.get(_ROWS_PER_STRIP, height) or height))
        tile = int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))
        copies = 1 if tags.get(_ORIENTATION, 1) == 1 else 2  # Pillow turns it into a second image
        # beside image and result there is the decoder's buffer of one strip or tile
        return int(pixels * (copies * stored + result)) + max(strip, tile) * max(sample, 4) + rows
    return int(pixels * (stored + _WORKING.get(kind, 0) + result)) + rows
