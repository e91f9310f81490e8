"""Opens image files of known formats as Pillow images, once their headers pass the limits.

Where nothing else is said, an image is opened and not loaded, `kind` is the format of its file and
`data` the whole file.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImagePalette,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from lookalike.images.containers import (
    heif_names_are_text,
    heif_size,
    png_sums_hold,
    webp_canvas,
    webp_first_frame,
)
from lookalike.images.heif_properties import (
    Box,
    Placement,
    decoder_turns,
    placement,
    properties,
)
from lookalike.images.jpeg_frames import jpeg_frame
from lookalike.images.limits import ImageLimits
from lookalike.images.memory import check_size, memory
from lookalike.images.rejections import Rejected
from lookalike.images.rewriting import large_profile_of_png, rewritten
from lookalike.sources.tiff_layout import decoded_wrongly, layout

# One file at a time in a process; processes fill the machine.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

_ORIENTATION = 0x0112


def readable(kind: str, data: bytes, limits: ImageLimits) -> io.BytesIO:
    """What the decoder of a format reads, once the sizes that it allocates by pass the limits.

    Args:
        kind: the format, of `sniff.READ_FORMATS`.
        data: the whole file.
        limits: what the file may cost. Decoders that allocate when opened are not called before
            the sizes that they allocate by are found within the limits.

    Returns:
        The file, or one of the same picture; where it stands tells how far a decoder got.

    Raises:
        Rejected: outside the limits, or of a kind that is known not to be read.
    """
    if kind == "WEBP" and (canvas := webp_canvas(data)):
        width, height, frames = canvas
        limits.check_frames(frames)
        check_size(width, height, kind, limits)
    if kind in ("HEIC", "AVIF"):
        limits.check_pixels(*heif_size(data))  # the libraries have limits of their own
    if kind == "HEIC" and not heif_names_are_text(data):
        raise Rejected("corrupt", "the type or name of an item is no text")  # pi_heif would crash
    if kind == "TGA" and (why := _unread_tga(data)):
        raise Rejected("unsupported_format", why)
    if kind == "PNM" and data[:2] not in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"):
        raise Rejected("unsupported_format", f"PNM images of kind {data[:2]!r} are not read")
    if kind == "JPEG" and (frame := jpeg_frame(data)) and frame.unread:
        raise Rejected("unsupported_format", frame.unread)
    if kind == "TIFF" and decoded_wrongly(found := layout(data)):
        raise Rejected("unsupported_format", f"TIFF of this layout is not read: {found}")
    return io.BytesIO(rewritten(kind, data, limits))


def open_image(kind: str, stream: io.BytesIO, data: bytes) -> Image.Image:
    """Open what `readable` gives; no pixel is decoded (but those of icons).

    Returns:
        The image, at its first frame or page.

    Raises:
        Exception: whatever a decoder raises over a damaged file.
    """
    image = _OPENERS[kind](stream)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        image.info.pop("xmp", None)  # by which Pillow would turn it, where nothing else says how
        _mend(image)
    if kind == "PNG" and (profile := large_profile_of_png(data)):
        image.info["icc_profile"] = profile
    if isinstance(image, TgaImagePlugin.TgaImageFile) and image.palette:
        if image.mode != "P":
            image.palette = None  # a map of colours that the pixels do not use
        elif image.palette.rawmode == "BGRA":
            image.palette.mode = "RGBA"
    return image


def _mend(image: TiffImagePlugin.TiffImageFile) -> None:
    """Put right what Pillow takes from the tags, before it decodes by that.

    libtiff gives samples in the machine's order, of whatever order they are in the file; and maps
    of colours were written with 8 bits where there should be 16.
    """
    if image.use_load_libtiff and image.tile:
        tile = image.tile[0]
        args = tile.args if isinstance(tile.args, tuple) else ()
        if args and args[0] in _NATIVE:
            image.tile = [tile._replace(args=(_NATIVE[args[0]], *args[1:]))]
    colours = image.tag_v2.get(_COLOUR_MAP) if image.mode in ("P", "PA") else None
    if colours and max(colours) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


_COLOUR_MAP = 320
_NATIVE = {
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
}


_TGA_DEPTHS = {1: (8,), 2: (16, 24, 32), 3: (8, 16)}


def _unread_tga(data: bytes) -> str:
    """Why a TGA file's pixels are not read; empty where they are, or where it makes no sense."""
    if len(data) < 18:
        return ""
    mapped, kind, map_depth, depth, flags = data[1], data[2], data[7], data[16], data[17]
    if depth not in _TGA_DEPTHS.get(kind & 7, (depth,)) and depth in (15, 16, 24, 32):
        return f"TGA of type {kind} with {depth} bits a pixel is not read"
    if mapped == 1 and kind & 7 == 1 and map_depth == 15:
        return f"TGA with a map of colours of {map_depth} bits is not read"
    return "TGA of interleaved rows is not read" if flags & 0xC0 else ""


def covered(image: Image.Image, kind: str, data: bytes) -> Box | None:
    """The part of the picture that its first frame covers; None where that is all of it.

    Decoders fill what is outside with the first colour of a palette, or with black; it is
    transparent.
    """
    box: Box | None = None
    if isinstance(image, GifImagePlugin.GifImageFile) and image.tile:
        box = image.tile[0].extents
    elif kind == "WEBP" and image.mode == "RGB":
        box = webp_first_frame(data)
    return None if box == (0, 0, *image.size) else box


def check_header(
    image: Image.Image, kind: str, data: bytes, limits: ImageLimits, min_side: int | None
) -> None:
    """Refuse an opened image that the limits do not allow, or whose checksums fail.

    Raises:
        Rejected: that is so.
    """
    width, height = image.size
    if kind == "BMP" and width >= 1 << 31:  # a signed number, which Pillow reads as unsigned
        raise Rejected("corrupt", f"negative width {width - (1 << 32)}")
    limits.check_pixels(width, height)
    if kind in ("PNG", "AVIF", "HEIC"):  # TIFF and GIF would have to be read through
        limits.check_frames(getattr(image, "n_frames", 1))
    need = len(data) + memory(image, kind, data, min_side)
    limits.check_memory(need, f"{width} x {height} pixels ({kind}, {image.mode})")
    if kind == "PNG" and not png_sums_hold(data):
        raise Rejected("corrupt", "bad checksum in an IDAT chunk")


def place(image: Image.Image, kind: str, data: bytes) -> Placement:
    """Which part of a loaded picture is shown, and how it must be turned.

    In HEIC and AVIF the container's properties say so, and nothing else does. In the others EXIF
    does: XMP repeats it, as other readers of pictures know, and is heeded by none of them.
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
    from lookalike.images.heic import (
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
