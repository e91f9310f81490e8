"""Colour described by numbers: ITU-T H.273 in HEIC, AVIF and PNG, and PNG's gAMA and cHRM.

Numbers become an ICC profile, so that pictures take one way to sRGB whoever describes them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lookalike.images.containers import png_chunks
from lookalike.images.heif_properties import properties

_Floats = NDArray[np.float64]
Place = tuple[float, float]
"""A colour without its lightness: x and y of CIE 1931."""

SRGB = "sRGB"
_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
_SRGB_PLACES: tuple[Place, ...] = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65)
# H.273: red, green, blue and white by the number of the colour primaries
_PLACES: dict[int, tuple[Place, ...]] = {
    1: _SRGB_PLACES,
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}
# The curve by the number of the transfer characteristics. Those of television (1, 6, 11, 12, 14,
# 15) describe cameras; pictures marked so were made to be shown as sRGB, and browsers show them so.
_CURVES: dict[int, str | float] = {
    4: 2.2,
    5: 2.8,
    7: "SMPTE 240M",
    8: 1.0,
    9: "log 100",
    10: "log 316",
    16: "PQ",
    17: "SMPTE 428",
    18: "HLG",
}


@dataclass(frozen=True)
class ColourSpace:
    """What the values of pixels mean.

    Attributes:
        places: of red, green, blue and white.
        curve: the power that gives light, or the name of a curve.
        narrow: whether black and white are 16 and 235.
    """

    places: tuple[Place, ...] = _SRGB_PLACES
    curve: str | float = SRGB
    narrow: bool = False

    def of_gray(self) -> ColourSpace:
        """The same for gray, which has no places but white's."""
        return replace(self, places=_SRGB_PLACES)


def described(kind: str, data: bytes, has_profile: bool) -> ColourSpace | None:
    """The colour space that a file describes by numbers, where these count; None where they don't.

    Args:
        kind: the format.
        data: the file.
        has_profile: whether it has an ICC profile, which PNG's cICP goes before, and nothing else.
    """
    if kind == "PNG":
        return _described_by_png(data, has_profile)
    if kind in ("AVIF", "HEIC") and not has_profile:
        for name, content in properties(data):
            if name == b"colr" and content[:4] == b"nclx" and len(content) >= 8:
                return numbered(*struct.unpack(">HH", content[4:8]))
    return None


def numbered(primaries: int, transfer: int, narrow: bool = False) -> ColourSpace | None:
    """The colour space of these numbers of H.273; None where it is sRGB or nobody knows."""
    curve = _CURVES.get(transfer, SRGB)
    unsaid = 9 if curve in ("PQ", "HLG") else 1  # these came with BT.2020's primaries
    places = _PLACES.get(primaries, _PLACES[unsaid])
    space = ColourSpace(places, curve, narrow)
    return None if space == ColourSpace() else space


def _described_by_png(data: bytes, has_profile: bool) -> ColourSpace | None:
    """By the order of the PNG specification: cICP, then a profile, sRGB, and gAMA with cHRM."""
    chunks: dict[bytes, bytes] = {}
    for name, start, end in png_chunks(data):
        if name == b"IDAT":
            break
        if name in (b"cICP", b"sRGB", b"gAMA", b"cHRM"):
            chunks.setdefault(name, data[start:end])
    named = chunks.get(b"cICP", b"")
    if len(named) == 4 and named[2] == 0 and (named[0] in _PLACES or named[1] in _CURVES):
        return numbered(named[0], named[1], narrow=named[3] == 0) or ColourSpace()
    if has_profile or b"sRGB" in chunks:
        return None
    places = _SRGB_PLACES
    curve: str | float = SRGB
    gamma = int.from_bytes(chunks.get(b"gAMA", b""), "big") / 100_000
    if 0.1 <= gamma <= 5 and abs(gamma * 2.2 - 1) > 0.05:  # 1 / 2.2 stands for sRGB's curve
        curve = 1 / gamma
    if len(chunks.get(b"cHRM", b"")) == 32:
        numbers = [number / 100_000 for number in struct.unpack(">8I", chunks[b"cHRM"])]
        white, *others = zip(numbers[::2], numbers[1::2], strict=True)
        if _to_d50((*others, white)) is not None:
            places = (*others, white)
    space = ColourSpace(places, curve)
    return None if space == ColourSpace() else space


@lru_cache(maxsize=32)
def profile(space: ColourSpace) -> bytes:
    """An ICC profile of a colour space.

    Raises:
        ValueError: No colours are like its places, or its curve has no formula here.
    """
    levels = np.arange(256) / 255  # pictures have 8 bits
    if space.narrow:
        levels = ((255 * levels - 16) / 219).clip(0, 1)
    light = np.round(_light(levels, space.curve).clip(0, 1) * 65535).astype(">u2")
    curve = b"curv\0\0\0\0" + struct.pack(">I", light.size) + light.tobytes()
    matrix = _to_d50(space.places)
    if matrix is None:
        raise ValueError(f"{space}: white is no mixture of its red, green and blue")
    return _icc(
        {
            b"desc": b"desc\0\0\0\0\0\0\0\x08numbers\0" + bytes(78),
            b"cprt": b"text\0\0\0\0none\0",
            b"wtpt": _xyz(_D50),
            b"rXYZ": _xyz(matrix[:, 0]),
            b"gXYZ": _xyz(matrix[:, 1]),
            b"bXYZ": _xyz(matrix[:, 2]),
            **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
        }
    )


_D50 = np.array((0.9642, 1.0, 0.8249))
_BRADFORD = np.array(
    ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
)


def _to_d50(places: tuple[Place, ...]) -> _Floats | None:
    """The matrix to XYZ under D50, by Bradford's adaptation; None where no colours are like that.

    Args:
        places: of red, green, blue and white.
    """
    if any(x + y > 1.00001 for x, y in places) or places[3][1] <= 0:
        return None
    *columns, white = (np.array((x, y, 1 - x - y)) for x, y in places)
    matrix = np.stack(columns, axis=1)
    if abs(np.linalg.det(matrix)) < 1e-3:
        return None
    white = white / white[1]
    amounts = np.linalg.solve(matrix, white)
    if not 0 < amounts.min() <= amounts.max() < 50:
        return None  # white is no mixture of the three
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adapted: _Floats = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ (matrix * amounts)
    return adapted


def _light(values: _Floats, curve: str | float) -> _Floats:
    """The light that values of 0 to 1 stand for; 1 is white, and HDR is bent to end there."""
    if isinstance(curve, float):
        return values**curve
    if curve == "PQ":
        root = values ** (1 / 78.84375)
        nits = 10_000 * ((root - 0.8359375).clip(0) / (18.8515625 - 18.6875 * root)) ** (
            1 / 0.1593017578125
        )
        return _bent(nits / 203)
    if curve == "HLG":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
        return _bent(1000 * scene**1.2 / 203)
    if curve == "SMPTE 240M":
        return np.where(values < 0.0913, values / 4, ((values + 0.1115) / 1.1115) ** (1 / 0.45))
    if curve == "SMPTE 428":
        return values**2.6 * 52.37 / 48
    if curve in ("log 100", "log 316"):
        decades = 2.0 if curve == "log 100" else 2.5
        return np.where(values > 0, 10 ** ((values - 1) * decades), 0)
    if curve != SRGB:
        raise ValueError(f"no formula for the curve {curve!r}")
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _bent(light: _Floats) -> _Floats:
    """Light of more than white's brightness, brought below it; up to half of white, as it was.

    White is 203 cd/m2, which is reference white of BT.2408; what an HDR picture has beyond it is
    highlights.
    """
    return np.where(light <= 0.5, light, 1 - 0.5 * np.exp(1 - 2 * light.clip(0.5)))


def _xyz(values: _Floats) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def _icc(tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of RGB, version 2.4, for displays; tags that are alike are stored once."""
    places: dict[bytes, int] = {}
    body = b""
    for content in tags.values():
        if content not in places:
            places[content] = 132 + 12 * len(tags) + len(body)
            body += content + bytes(-len(content) % 4)
    table = struct.pack(">I", len(tags)) + b"".join(
        name + struct.pack(">II", places[content], len(content)) for name, content in tags.items()
    )
    head = struct.pack(
        ">I4xI4s4s4s12x4s28x12s48x",
        128 + len(table) + len(body),
        0x02400000,
        b"mntr",
        b"RGB ",
        b"XYZ ",
        b"acsp",
        _xyz(_D50)[8:],
    )
    return head + table + body
