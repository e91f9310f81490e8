"""What a decoder's failure says about a file: cut short, of a kind not read, or broken."""

from __future__ import annotations

import ctypes
import io
import re

from PIL import Image, TiffImagePlugin, _imaging

from lookalike.images.containers import is_cut
from lookalike.images.rejections import Rejected
from lookalike.sources.tiff_layout import layout


def explain(
    error: Exception, kind: str, data: bytes, stream: io.BytesIO, image: Image.Image | None
) -> Rejected:
    """The rejection that a decoder's exception comes to.

    Args:
        error: what it raised; hostile files make Pillow raise nearly anything.
        kind: the format.
        data: the whole file.
        stream: what the decoder read from.
        image: None where opening failed already.

    Returns:
        To be raised from the error.
    """
    words = _words(error)
    if isinstance(error, Image.DecompressionBombError):
        return Rejected("too_many_pixels", words)
    if isinstance(error, MemoryError):
        return Rejected("out_of_memory", words)
    if words.startswith("decoder error") and image is not None:
        words += f" ({kind}, compression {image.info.get('compression', 'none')})"
    cut = _ends_early(kind, data, image)
    said = str(error).lower()
    if cut is None and ("truncated" in said or "not enough" in said or isinstance(error, EOFError)):
        cut = True
    if cut:
        return Rejected("truncated", words)
    if kind == "TIFF" and "unknown pixel mode" in said:
        return Rejected("unsupported_format", f"TIFF of this layout is not read: {layout(data)}")
    if _UNSUPPORTED.search(said) and not _is_nonsense(said):
        return Rejected("unsupported_format", words)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and not _has_codec(image):
        return Rejected(
            "unsupported_format", f"{words}: libtiff was built without this compression"
        )
    if kind == "HEIC" and not (b"hvc1" in data and b"meta" in data):
        return Rejected("unsupported_format", "HEIF without a still picture coded by HEVC")
    # formats read in order that tell no length: a header that failed at the last byte ended there
    ended = (
        cut is None
        and kind != "TIFF"
        and image is None
        and stream.tell() >= len(stream.getbuffer())
    )
    if kind == "GIF" and said.startswith("not identified"):
        ended = False  # a size of 0
    return Rejected("truncated" if ended else "corrupt", words)


_MARKERS = re.compile(rb"\xff[\xc0-\xcf\xda-\xfe]")  # but those that stand in coded pixels


def ends_in_last_scan(data: bytes) -> bool:
    """Whether a JPEG file ends among the coded pixels of its last scan.

    A progressive file has more to come until some scan has had the last bit of every coefficient;
    no file ends in a header.
    """
    missing: dict[int, set[int]] = {}  # by component: the coefficients without their last bit
    in_scan, at = False, 2
    while found := _MARKERS.search(data, at):
        marker, at = data[found.start() + 1], found.start() + 2
        body = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        in_scan = marker == 0xDA and at + 2 + len(body) < len(data) and len(body) >= 4
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            progressive = marker & 3 == 2
            missing = {one: set(range(64 * progressive)) for one in body[6::3]}
        elif in_scan and body[-1] & 15 == 0:
            for one in body[1:-3:2]:
                missing.get(one, set()).difference_update(range(body[-3], body[-2] + 1))
        at += 2 + len(body)
    return in_scan and not any(missing.values())


_UNSUPPORTED = re.compile(
    r"unsupported|not supported|unknown (pixel mode|compression|tga)|unable to determine"
)


def _is_nonsense(said: str) -> bool:
    """Whether what is not supported is a number that no version of the format knows."""
    if "unknown compression method" in said or "bmp palette size" in said:
        return True
    if found := re.search(r"bmp header type \((\d+)\)", said):
        return int(found[1]) not in _BMP_HEADERS
    if found := re.search(r"bmp pixel depth \((\d+)\)", said):
        return int(found[1]) not in _BMP_DEPTHS
    return False


# OS/2's second version may end after any of its fields; depth 0 announces a JPEG or PNG inside.
_BMP_HEADERS = {12, *range(16, 66, 2), 108, 124}
_BMP_DEPTHS = {0, 1, 2, 4, 8, 16, 24, 32, 64}


def _words(error: BaseException) -> str:
    """What the decoder said; with the exception's name where the words alone say little."""
    words = str(error)
    plain = isinstance(error, OSError | SyntaxError | ValueError) and len(words) > 12
    return words if plain else f"{type(error).__name__}: {words}".rstrip(": ")


def _ends_early(kind: str, data: bytes, image: Image.Image | None) -> bool | None:
    """Whether a file is shorter than its own structure says; None where that does not show."""
    try:
        if kind == "TIFF":
            return True if _tiff_end(data, image) > len(data) else None
        return is_cut(kind, data)
    except Exception:  # tags of a hostile file may hold anything; then it is merely corrupt
        return None


def _tiff_end(data: bytes, image: Image.Image | None) -> int:
    """Where the first page's directory ends, or its last strip or tile where that could be read."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        little = data[:2] == b"II"
        start = int.from_bytes(data[4:8], "little" if little else "big")
        entries = int.from_bytes(data[start : start + 2], "little" if little else "big")
        return start + 2 + 12 * entries
    ends = [0]
    for offsets, sizes in ((273, 279), (324, 325)):
        pairs = zip(image.tag_v2.get(offsets, ()), image.tag_v2.get(sizes, ()), strict=False)
        ends += [offset + size for offset, size in pairs]
    return max(ends)


def _has_codec(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether libtiff was built with what a file's pixels are compressed by."""
    try:
        library = ctypes.CDLL(_imaging.__file__)
        return bool(library.TIFFIsCODECConfigured(int(image.tag_v2.get(259, 1))))
    except (AttributeError, OSError, TypeError, ValueError, ctypes.ArgumentError):
        return True
