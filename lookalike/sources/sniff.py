"""What a file is, from its first bytes: the names of image formats, read or not read here."""

from __future__ import annotations

import re
from collections.abc import Callable

from lookalike.sources.tiff_layout import tiff_tags

READ_FORMATS: frozenset[str] = frozenset(
    {"JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "HEIC", "AVIF", "JPEG2000", "ICO", "TGA", "PNM"}
)
"""The formats whose pixels `lookalike.images.preparing` reads."""

CAMERA_FORMATS: frozenset[str] = frozenset(
    {"ARW", "CR2", "CR3", "CRW", "DNG", "MRW", "NEF", "ORF", "PEF", "RAF", "RAW", "RW2", "SRW"}
)
"""Camera raw formats, which it reads where rawpy is installed; "RAW" is any TIFF of that kind."""

SNIFF_BYTES = 1024
"""How many leading bytes `sniff` looks at; fewer are fine when the file is shorter."""

_SUFFIXES = (
    "jpg jpeg jpe jfif jif mpo png apng gif bmp dib webp tif tiff heic heif heics heifs hif avif "
    "avifs jp2 j2k jpf jpx jpm jpc j2c jxl psd psb ico cur icns tga icb vda vst ppm pgm pbm pnm "
    "pam pfm qoi svg svgz eps dds exr hdr pcx dcx sgi rgb rgba bw ras xbm xpm xcf wmf emf fits "
    "bpg flif jng mng jxr wdp hdp ai dpx dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf pef srw "
    "x3f 3fr erf kdc mrw iiq raw"
)

IMAGE_SUFFIXES: frozenset[str] = frozenset(_SUFFIXES.split())
"""Lower-case file name suffixes, without the dot, that claim to be an image, read or not."""

_TGA_SUFFIXES = frozenset({"tga", "icb", "vda", "vst"})

# Formats told by their first bytes alone. Order matters where one prefix starts another.
_PREFIXES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG", "PNG"),  # what follows shows damage, such as changed line ends
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"FUJIFILMCCD-RAW", "RAF"),
    (b"IIRO", "ORF"),
    (b"IIRS", "ORF"),
    (b"MMOR", "ORF"),
    (b"IIU\x00", "RW2"),
    (b"II\x1a\0\0\0HEAPCCDR", "CRW"),
    (b"\0MRM", "MRW"),
    (b"FOVb", "X3F"),
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
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"\x01\xda\x00\x01", "SGI"),
    (b"\x01\xda\x01\x01", "SGI"),
    (b"\x59\xa6\x6a\x95", "SUN"),
    (b"SIMPLE  =", "FITS"),
    (b"gimp xcf", "XCF"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"SDPX", "DPX"),
    (b"XPDS", "DPX"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    (b"/* XPM */", "XPM"),
    (b"\x8aMNG\r\n\x1a\n", "MNG"),
    (b"\x8bJNG\r\n\x1a\n", "JNG"),
)

_SUBFILE_TYPE, _PHOTOMETRIC, _MAKE, _SUB_IFDS, _DNG_VERSION = 254, 262, 271, 330, 50706

_MAKERS = ((b"NIKON", "NEF"), (b"SONY", "ARW"), (b"PENTAX", "PEF"), (b"SAMSUNG", "SRW"))

_HEIF_BRANDS = frozenset(
    (
        b"heic",
        b"heix",
        b"heim",
        b"heis",
        b"hevc",
        b"hevx",
        b"hevm",
        b"hevs",
        b"mif1",
        b"mif2",
        b"msf1",
        b"miaf",
        b"MiHE",
        b"MiHB",
    )
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
    if head.startswith(b"%!PS") and b"EPSF" in head[:64]:
        return "EPS"
    return "XBM" if re.match(rb"#define\s+\w+_width\s+\d", head) else None


_TESTS: tuple[Callable[[bytes], str | None], ...] = (
    _bmp,
    _webp,
    _isobmff,
    _icon,
    _netpbm,
    _svg,
    _others,
)


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


def identify(data: bytes, name: str) -> str | None:
    """Name the image format of a whole file: by `sniff`, and by what lies farther in.

    Args:
        data: the file.
        name: its path or URI, which only counts for TGA files of the old kind.

    Returns:
        As `sniff`, with camera raw told from ordinary TIFF, and with "TGA"; and with the drawings
        that only their names tell from documents and archives.
    """
    kind = sniff(data)
    for start, suffixes, drawing in _DRAWINGS:
        if kind is None and data.startswith(start) and suffix(name) in suffixes:
            return drawing
    if kind == "TIFF":
        return _camera(data) or kind
    if kind is None and (data[-18:] == b"TRUEVISION-XFILE.\0" or is_tga(data, name)):
        return "TGA"
    return kind


_DRAWINGS = (
    (b"%!PS", ("eps", "ai"), "EPS"),
    (b"%PDF", ("ai",), "Illustrator"),
    (b"\x1f\x8b", ("svgz",), "SVG"),
)

# What is no image, by its first bytes: documents of pages, films, sounds and archives.
_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (rb"(\xef\xbb\xbf|\s)*%PDF-", "a PDF document"),
    (rb"%!PS", "a PostScript document"),
    (rb"AT&TFORM", "a DjVu document"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
    (rb"PK\x03\x04", "a ZIP archive, or a document in one"),
    (rb"Rar!\x1a\x07|7z\xbc\xaf\x27\x1c|\x1f\x8b|.{257}ustar", "an archive"),
    (rb"....ftyp|....(moov|mdat)|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]|FLV\x01", "a film"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11|OggS", "a film or a sound"),
    (rb"ID3|fLaC|RIFF....WAVE|\xff[\xf2\xf3\xfa\xfb]", "a sound"),
    (rb"\s*<(!doctype html|html)", "a page of HTML"),
)


def other_kind(data: bytes) -> str | None:
    """What a file without an image's first bytes is, in words; None where it does not say."""
    for pattern, words in _OTHER_KINDS:
        if re.match(pattern, data[:SNIFF_BYTES], re.DOTALL | re.IGNORECASE):
            return words
    return None


_LONGEST_BEFORE = 16
_STARTS = re.compile(rb"\xff\xd8\xff[\xc0-\xc2\xc4\xdb\xdd\xe0-\xef\xfe]|\x89PNG\r\n\x1a\n")


def bytes_before(data: bytes) -> int:
    """How many bytes stand before a JPEG or PNG file's beginning, such as a line end.

    0 where there are none, more than 16, or where what is there is the beginning of something else.
    """
    if sniff(data) or other_kind(data):
        return 0
    found = _STARTS.search(data, 0, _LONGEST_BEFORE + 8)
    return found.start() if found and found.start() <= _LONGEST_BEFORE else 0


def _camera(data: bytes) -> str | None:
    """The camera format that a TIFF file is: its first page is a preview or a sensor's values."""
    tags = tiff_tags(data)
    if _DNG_VERSION in tags:
        return "DNG"
    preview = _SUB_IFDS in tags and any(tags.get(_SUBFILE_TYPE, b""))
    if not preview and tags.get(_PHOTOMETRIC) not in (b"\x23\x80", b"\x80\x23"):  # a colour filter
        return None
    maker = tags.get(_MAKE, b"").upper()
    return next((kind for name, kind in _MAKERS if maker.startswith(name)), "RAW")


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
