"""A file's bytes become a picture as the file stores it: recognised, checked and decoded."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lookalike.images.colour import Transform
from lookalike.images.damage import ends_in_last_scan, explain
from lookalike.images.heic_tiles import reduced_by_tiles
from lookalike.images.heif_grid import Grid, grid
from lookalike.images.heif_properties import placement, properties
from lookalike.images.jpeg_frames import jpeg_frame
from lookalike.images.limits import ImageLimits
from lookalike.images.memory import memory
from lookalike.images.openers import check_header, covered, open_image, place, readable
from lookalike.images.pixels import clear_outside, simplify, whole_factor
from lookalike.images.quiet_pillow import quiet_pillow
from lookalike.images.rejections import NotAnImage, Rejected
from lookalike.images.system_files import system_content, system_folder, system_name
from lookalike.sources.sniff import (
    CAMERA_FORMATS,
    READ_FORMATS,
    bytes_before,
    claims_image,
    identify,
    other_kind,
)
from lookalike.sources.tiff_layout import layout, needs_libtiff


@dataclass(frozen=True)
class Stored:
    """A picture as the file stores it, before it is turned upright.

    Attributes:
        image: of mode RGB or L, without alpha, reduced by a whole factor.
        extent: (width, height) of the picture in `image`'s pixels: with what it was reduced by, the
            last column and row may reach beyond the picture's edge.
        to_srgb: what still takes it, or what is made of it, to sRGB.
        orientation: how it must be turned, as in EXIF, 1 to 8.
        width: pixels across, in the file, seen upright.
        height: pixels down, in the file, seen upright.
        format: what the content is.
    """

    image: Image.Image
    extent: tuple[float, float]
    to_srgb: Transform | None
    orientation: int
    width: int
    height: int
    format: str


def load(data: bytes, name: str, limits: ImageLimits, min_side: int | None) -> Stored:
    """Recognise a file by its content, check its header against the limits, and decode it.

    Args:
        data: the whole file.
        name: its path or URI.
        limits: what it may cost.
        min_side: both sides of the result stay at least twice this; None leaves the size alone.

    Returns:
        The picture of the first frame or page.

    Raises:
        Rejected: an image, by content or name, of which no picture can be made.
        NotAnImage: neither content nor name says image.
    """
    try:
        kind = _recognise(data, name)
    except (Rejected, NotAnImage) as unrecognised:
        before = bytes_before(data)
        if not before:
            raise
        try:
            return load(data[before:], "", limits, min_side)
        except Rejected:
            if claims_image(name):
                raise
            raise unrecognised from None  # a picture's beginning by chance, perhaps
    limits.check_bytes(len(data))
    if kind in CAMERA_FORMATS:
        return _develop(kind, data, limits, min_side)
    try:
        return _decode(kind, data, limits, min_side)
    except Rejected as rejected:
        if rejected.reason != "truncated":
            raise
        if whole := _whole_but_for_its_end(kind, data, limits, min_side):
            return whole
        if limits.truncated != "accept":
            raise
        try:
            return _decode(kind, data, limits, min_side, partial=True)
        except Rejected:
            raise rejected from rejected.__cause__


def _recognise(data: bytes, name: str) -> str:
    """The format to decode, or the exception that says why there is none."""
    claims, own = claims_image(name), system_name(name)
    if said := system_folder(name) or system_content(data):
        raise NotAnImage(said, "system_file")
    if not data and not own:
        why = "the file has no bytes"
        raise Rejected("empty", why) if claims else NotAnImage(why, "empty")
    kind = identify(data, name)
    if kind is not None and kind in READ_FORMATS | CAMERA_FORMATS:
        return kind
    if kind:
        raise Rejected("unsupported_format", f"{kind} images are not read")
    other = other_kind(data)
    if own:
        raise NotAnImage(own, "system_file")
    if claims:
        what = other or f"no known image: it begins {data[:12]!r}"
        raise Rejected("not_an_image", f"the content is {what}")
    raise NotAnImage(other or "neither content nor name says image")


def _develop(kind: str, data: bytes, limits: ImageLimits, min_side: int | None) -> Stored:
    try:
        from lookalike.images.camera_raw import develop  # needs an optional package
    except ModuleNotFoundError as error:
        remedy = (
            f"{kind} is camera raw, read where rawpy is installed: pip install 'lookalike[raw]'"
        )
        raise Rejected("unsupported_format", remedy) from error
    pixels, width, height = develop(data, limits, min_side)
    image, to_srgb = simplify(Image.fromarray(pixels), kind, data, min_side)
    factor = whole_factor(pixels.shape[1], pixels.shape[0], min_side)
    extent = (pixels.shape[1] / factor, pixels.shape[0] / factor)
    return Stored(image, extent, to_srgb, 1, width, height, kind)


def _decode(
    kind: str, data: bytes, limits: ImageLimits, min_side: int | None, partial: bool = False
) -> Stored:
    stream = io.BytesIO(data)
    image: Image.Image | None = None
    libtiff = kind == "TIFF" and needs_libtiff(layout(data))
    with quiet_pillow(partial, libtiff):
        try:
            stream = readable(kind, data, limits)
            with open_image(kind, stream, data) as image:
                if kind == "HEIC":
                    need = memory(image, kind, data, min_side) + len(data)
                    if need > limits.max_memory and (tiles := grid(data)):
                        return _load_tiles(data, tiles, image, limits, min_side)
                check_header(image, kind, data, limits, min_side)
                size = image.size
                # None keeps the colour model; the sides asked for are the least that come out
                frame = jpeg_frame(data) if kind == "JPEG" else None
                reducible = frame is not None and frame.reducible
                least = (2 * min_side, 2 * min_side) if min_side and reducible else None
                part = covered(image, kind, data)
                drafted = image.draft(None, least) if least else None
                image.load()
                if partial and _is_blank(image):
                    raise Rejected("truncated", "nothing of the picture is there")
                placed = place(image, kind, data)
                shown = image.crop(placed.box) if placed.box else image
                if part:
                    shown = clear_outside(shown, part)
                # a TIFF turns itself upright as it loads, and its size with it
                width, height = shown.size if placed.box or kind == "TIFF" else size
                simple, to_srgb = simplify(shown, kind, data, min_side)
                factor = whole_factor(*shown.size, min_side)
                across, down = drafted[1][2:] if drafted else shown.size
        except Rejected:
            raise
        except Exception as error:
            raise explain(error, kind, data, stream, image) from error
    if placed.orientation > 4:
        width, height = height, width
    extent = (across / factor, down / factor)
    return Stored(simple, extent, to_srgb, placed.orientation, width, height, kind)


def _load_tiles(
    data: bytes, tiles: Grid, opened: Image.Image, limits: ImageLimits, min_side: int | None
) -> Stored:
    """The picture of a HEIC file that is too large to be decoded at once."""
    image, step = reduced_by_tiles(data, tiles, limits, min_side)
    image.info["icc_profile"] = opened.info.get("icc_profile")
    width, height = tiles.width, tiles.height
    placed = placement(properties(data), width, height)
    if placed.box:
        left, top, right, bottom = placed.box
        width, height = right - left, bottom - top
        image = image.crop((left // step, top // step, -(-right // step), -(-bottom // step)))
    simple, to_srgb = simplify(image, "HEIC", data, min_side)
    factor = whole_factor(*image.size, min_side)
    extent = (min(width / step, image.width) / factor, min(height / step, image.height) / factor)
    if placed.orientation > 4:
        width, height = height, width
    return Stored(simple, extent, to_srgb, placed.orientation, width, height, "HEIC")


# Bits of one follow another as they hardly do in a picture's code, and no byte is in both.
_TAILS = (b"\x55" * 64, b"\xfe" * 64)


def _whole_but_for_its_end(
    kind: str, data: bytes, limits: ImageLimits, min_side: int | None
) -> Stored | None:
    """The picture of a file that ends too early, where no pixel hangs on what would have followed.

    That is so where the mark of the end is missing, or what fills the last row. Two ways of going
    on are tried, and lead to one picture, of full size.
    """
    end = b"\xff\xd9" if kind == "JPEG" else b""
    if kind == "JPEG" and not ends_in_last_scan(data):
        return None
    data = data.removesuffix(end[:1])  # half a mark
    try:
        one, other = (_digest(_decode(kind, data + tail + end, limits, None)) for tail in _TAILS)
        return _decode(kind, data + _TAILS[0] + end, limits, min_side) if one == other else None
    except Rejected:
        return None


def _digest(stored: Stored) -> bytes:
    """Equal for equal pixels, nearly surely for no others."""
    image, digest = stored.image, hashlib.sha256()
    for top in range(0, image.height, 256):
        rows = image.crop((0, top, image.width, min(top + 256, image.height)))
        digest.update(rows.tobytes())
    return digest.digest()


def _is_blank(image: Image.Image) -> bool:
    """Whether nearly all pixels are alike, as decoders leave or fill those they did not reach."""
    if image.mode[0] in "IF":
        extrema = image.getextrema()
        return extrema[0] == extrema[1]
    counts = np.array(image.histogram()).reshape(-1, 256)
    return bool((counts.max(axis=1) > 0.999 * counts.sum(axis=1)).all())
