"""Opens image files of known formats as Pillow images, once their headers pass the limits."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from lookalike.pictures.containers import (
    heif_names_are_text,
    heif_size,
    jpeg2000_size,
    largest_icon,
    png_sums_hold,
    webp_canvas,
)
from lookalike.pictures.heif_properties import (
    Placement,
    decoder_turns,
    placement,
    properties,
    without_turns,
)
from lookalike.pictures.limits import ImageLimits
from lookalike.pictures.pixels import whole_factor
from lookalike.pictures.rejections import Rejected

# One file at a time in a process; processes fill the machine.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# What decoders allocate besides Pillow's image and ours, in bytes a pixel, as measured.
_WORKING = {
    "WEBP": 14,  # the animation decoder holds several canvases
    "AVIF": 14,  # planes of up to 16 bits in decoder and converter, then RGBA, then its copy
    "HEIC": 14,
    "ICO": 12,  # the bitmap, its mask, and both together
}

_ORIENTATION = 0x0112


def open_image(kind: str, data: bytes, stream: io.BytesIO, limits: ImageLimits) -> Image.Image:
    """Open a file of a format of `sniff.READ_FORMATS`; no pixel is decoded (but those of icons).

    Args:
        kind: the format.
        data: the whole file.
        stream: the same, from its beginning; where it stands tells how far a decoder got.
        limits: what the file may cost. Decoders that allocate when opened are not called before
            the sizes that they allocate by are found within the limits.

    Returns:
        The image, at its first frame or page.

    Raises:
        Rejected: outside the limits.
        Exception: whatever a decoder raises over a damaged file.
    """
    if kind == "WEBP" and (canvas := webp_canvas(data)):
        width, height, frames = canvas
        limits.check_frames(frames)
        _check_size(width, height, kind, limits)
    if kind in ("HEIC", "AVIF"):
        limits.check_pixels(*heif_size(data))  # the libraries have limits of their own
    if kind == "HEIC" and not heif_names_are_text(data):
        raise Rejected("corrupt", "the type or name of an item is no text")  # pi_heif would crash
    if kind == "HEIC" and not decoder_turns(data):
        stream = io.BytesIO(without_turns(data))
    if kind == "ICO":
        icon = largest_icon(data)
        if icon is None:
            raise Rejected("corrupt", "ICO without an entry")
        stream = io.BytesIO(icon[0])
        _check_size(*icon[1:], kind, limits)
    if kind == "PNM" and data[:2] not in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"):
        raise Rejected("unsupported_format", f"PNM images of kind {data[:2]!r} are not read")
    image = _OPENERS[kind](stream)
    if kind == "TIFF":
        image.info.pop("xmp", None)  # by which Pillow would turn it, where nothing else says how
    return image


def check_header(
    image: Image.Image, kind: str, data: bytes, limits: ImageLimits, min_side: int | None
) -> None:
    """Refuse an opened image that the limits do not allow, or whose checksums fail.

    Args:
        image: opened, not loaded.
        kind: its format.
        data: the whole file.
        limits: what the file may cost.
        min_side: see `images.decode`.

    Raises:
        Rejected: that is so.
    """
    width, height = image.size
    if kind == "BMP" and width >= 1 << 31:  # a signed number, which Pillow reads as unsigned
        raise Rejected("corrupt", f"negative width {width - (1 << 32)}")
    limits.check_pixels(width, height)
    if kind in ("PNG", "AVIF", "HEIC"):  # TIFF and GIF would have to be read through
        limits.check_frames(getattr(image, "n_frames", 1))
    need = len(data) + _memory(image, kind, data, min_side)
    limits.check_memory(need, f"{width} x {height} pixels ({kind}, {image.mode})")
    if kind == "PNG" and not png_sums_hold(data):
        raise Rejected("corrupt", "bad checksum in an IDAT chunk")


def place(image: Image.Image, kind: str, data: bytes) -> Placement:
    """Which part of the picture is shown, and how it must be turned.

    In HEIC and AVIF the container's properties say so, and nothing else does. In the others EXIF
    does: XMP repeats it, as other readers of pictures know, and is heeded by none of them.

    Args:
        image: loaded.
        kind: its format.
        data: the whole file.
    """
    alpha = image.mode[-1] in "Aa"
    if kind == "AVIF" or (kind == "HEIC" and alpha and not decoder_turns(data)):
        return placement(properties(data), *image.size)
    if kind in ("HEIC", "TIFF"):
        return Placement()  # they turn themselves, a TIFF as it loads
    try:
        exif = Image.Exif()  # Pillow's `getexif` would turn to XMP besides
        if "exif" in image.info:
            exif.load(image.info["exif"])
        elif "Raw profile type exif" in image.info:  # of a PNG, as text
            lines = image.info["Raw profile type exif"].split("\n")
            exif.load(bytes.fromhex("".join(lines[3:])))
        value = exif.get(_ORIENTATION, 1)
    except Exception:  # damaged metadata must not cost the picture; the decoders raise anything
        return Placement()
    return Placement(None, value if isinstance(value, int) and 1 <= value <= 8 else 1)


def _heic(stream: io.BytesIO) -> Image.Image:
    from lookalike.pictures.heic import (
        open_heic,  # loads two large libraries, which few collections need
    )

    image: Image.Image = open_heic(stream)
    return image


# The classes are called directly: Image.open would hide a decoder's words behind "cannot identify
# image file", and would apply Pillow's process-wide pixel limit in place of ours.
_OPENERS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "HEIC": _heic,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "ICO": IcoImagePlugin.IcoImageFile,
    "TGA": TgaImagePlugin.TgaImageFile,
    "PNM": PpmImagePlugin.PpmImageFile,
}


def _check_size(width: int, height: int, kind: str, limits: ImageLimits) -> None:
    """Refuse what a decoder that allocates when opened would allocate."""
    limits.check_pixels(width, height)
    need = width * height * (_WORKING[kind] + 4)
    limits.check_memory(need, f"{width} x {height} pixels ({kind})")


def _memory(image: Image.Image, kind: str, data: bytes, min_side: int | None) -> int:
    """An upper estimate, from the header, of the bytes that decoding allocates."""
    width, height = image.size
    pixels = width * height
    stored = {"1": 1, "L": 1, "P": 1}.get(image.mode, 2 if image.mode.startswith("I;16") else 4)
    factor = whole_factor(width, height, min_side)
    # the result's array, and the picture it is made of unless that is the decoded one itself
    simple = image.mode in ("RGB", "L") and factor == 1
    result = 3 / factor**2 + (0 if simple else 4 / factor**2)
    rows = 16 * height  # Pillow's row pointers: they matter for a picture one pixel wide
    if kind == "JPEG":
        # coefficients of all components, which progressive and multi-scan files keep whole
        draft = max(s for s in (1, 2, 4, 8) if s <= factor)
        return int(pixels * (2 * len(image.getbands()) + stored / draft**2 + result)) + rows
    if kind == "JPEG2000":
        # OpenJPEG holds a tile as 32-bit integers, and the codestream's size need not be the box's
        across, down, components, bits = jpeg2000_size(data) or (width, height, 4, 8)
        per_pixel = components * (5 + (bits + 7) // 8)
        return int(across * down * per_pixel + pixels * (stored + result)) + rows
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        bits = tags.get(258, (8,))
        sample = max(1, sum(bits if isinstance(bits, tuple) else (bits,)) // 8)
        strip = width * min(height, int(tags.get(278, height) or height))
        tile = int(tags.get(322, 0)) * int(tags.get(323, 0))
        copies = 1 if tags.get(_ORIENTATION, 1) == 1 else 2  # Pillow turns it into a second image
        # beside image and result there is the decoder's buffer of one strip or tile
        return int(pixels * (copies * stored + result)) + max(strip, tile) * max(sample, 4) + rows
    return int(pixels * (stored + _WORKING.get(kind, 0) + result)) + rows
