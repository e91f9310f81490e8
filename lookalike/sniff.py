"""What a file is, from its first bytes: the names of image formats, read or not read here."""

from __future__ import annotations

import re
from collections.abc import Callable

READ_FORMATS: frozenset[str] = frozenset({"JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"})
"""The formats whose pixels `lookalike.images` reads."""

SNIFF_BYTES = 1024
"""How many leading bytes `sniff` looks at; fewer are fine when the file is shorter."""

_READ_SUFFIXES = "jpg jpeg jpe jfif jif mpo png apng gif bmp dib webp tif tiff"

# A file with the name of a format that is not read still claims to be an image.
_OTHER_SUFFIXES = (
    "avif avifs heic heif heics hif jxl jp2 j2k jpf jpx jpm jpc j2c psd psb ico cur icns tga icb "
    "vda vst ppm pgm pbm pnm pam pfm qoi svg svgz eps dds exr hdr pcx dcx sgi rgb rgba bw ras xbm "
    "xpm xcf wmf emf fits djvu bpg flif jng mng dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf "
    "pef srw x3f 3fr erf kdc mrw iiq raw"
)

IMAGE_SUFFIXES: frozenset[str] = frozenset(_READ_SUFFIXES.split()) | set(_OTHER_SUFFIXES.split())
"""Lower-case file name suffixes, without the dot, that claim to be an image."""

_TGA_SUFFIXES = frozenset({"tga", "icb", "vda", "vst"})

# Formats told by their first bytes alone. Order matters where one prefix starts another.
_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"FUJIFILMCCD-RAW", "RAF"),
    (b"IIRO", "ORF"),
    (b"IIRS", "ORF"),
    (b"IIU\x00", "RW2"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "PSD"),
    (b"icns", "ICNS"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"v/1\x01", "EXR"),
    (b"#?RADIANCE", "HDR"),
    (b"#?RGBE", "HDR"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"\x01\xda\x00\x01", "SGI"),
    (b"\x01\xda\x01\x01", "SGI"),
    (b"\x59\xa6\x6a\x95", "SUN"),
    (b"SIMPLE  =", "FITS"),
    (b"gimp xcf", "XCF"),
    (b"AT&TFORM", "DJVU"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    (b"/* XPM */", "XPM"),
    (b"\x8aMNG\r\n\x1a\n", "MNG"),
    (b"\x8bJNG\r\n\x1a\n", "JNG"),
)

_HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)


def _isobmff(head: bytes) -> str | None:
    """AVIF, HEIC and CR3 share a container with MP4 video; the brands tell them apart."""
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12]] + [head[i : i + 4] for i in range(16, end - 3, 4)]
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    if brands[0] == b"crx ":
        return "CR3"
    return "HEIC" if _HEIF_BRANDS.intersection(brands) else None


def _bmp(head: bytes) -> str | None:
    """Tell a bitmap from text: `BM` begins many a text, so the size of the second header counts."""
    if head[:2] == b"BM" and len(head) >= 18 and 12 <= int.from_bytes(head[14:18], "little") < 1024:
        return "BMP"
    return None


def _webp(head: bytes) -> str | None:
    return "WEBP" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def _cr2(head: bytes) -> str | None:
    return "CR2" if head[:4] == b"II*\x00" and head[8:10] == b"CR" else None


def _icon(head: bytes) -> str | None:
    """Four bytes are weak evidence; the reserved byte of the first entry must be zero too."""
    if len(head) >= 22 and head[:4] in (b"\0\0\1\0", b"\0\0\2\0") and head[4:6] != b"\0\0":
        return ("ICO" if head[2] == 1 else "CUR") if head[9] == 0 else None
    return None


def _netpbm(head: bytes) -> str | None:
    pattern = rb"P[1-6]\s+(#|\d)|P7\s+(#|WIDTH|HEIGHT)|P[fF]\s+\d"
    return "PNM" if re.match(pattern, head) else None


def _svg(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    starts = (b"<?xml", b"<!--", b"<!doctype svg", b"<svg")
    return "SVG" if text.startswith(starts) and re.search(rb"<(\w+:)?svg[\s>]", text) else None


def _others(head: bytes) -> str | None:
    if re.match(rb"\n[\x00\x02-\x05]\x01[\x01\x02\x04\x08]", head):
        return "PCX"
    if head[:4] == b"\1\0\0\0" and head[40:44] == b" EMF":
        return "EMF"
    if head[128:132] == b"DICM":
        return "DICOM"
    return "XBM" if re.match(rb"#define\s+\w+_width\s+\d", head) else None


_TESTS: tuple[Callable[[bytes], str | None], ...] = (
    _bmp, _webp, _isobmff, _icon, _netpbm, _svg, _others,
)  # fmt: skip


def sniff(head: bytes) -> str | None:
    """Name the image format that a file's first bytes announce.

    Args:
        head: the first `SNIFF_BYTES` bytes, or the whole file where it is shorter.

    Returns:
        One of `READ_FORMATS`, the name of a known image format that is not read (such as "AVIF"
        or "PSD"), or None where the bytes announce no image.
    """
    head = head[:SNIFF_BYTES]
    if camera := _cr2(head):
        return camera
    for prefix, name in _PREFIXES:
        if head.startswith(prefix):
            return name
    return next(filter(None, (test(head) for test in _TESTS)), None)


def suffix(name: str) -> str:
    """The lower-case suffix of a path or URI's last part, without the dot; "" where none."""
    last = re.split(r"[/\\]", name)[-1]
    stem, dot, end = last.rpartition(".")
    return end.lower() if dot and stem else ""


def claims_image(name: str) -> bool:
    """Whether a file's name says that it holds an image."""
    return suffix(name) in IMAGE_SUFFIXES


def is_tga(head: bytes, name: str) -> bool:
    """Whether name and header together say TGA, which has no signature of its own."""
    plausible = len(head) >= 18 and head[1] <= 1 and head[2] in (1, 2, 3, 9, 10, 11)
    return plausible and suffix(name) in _TGA_SUFFIXES
