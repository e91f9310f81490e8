"""Small pictures side by side, numbered, as one picture for a terminal; and its bytes for each."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

_SIDE = 128  # pixels of a picture's longer side
_GAP, _LINE = 6, 12  # pixels between pictures, and of a number below
_ACROSS = 5  # pictures
_KITTY_CHUNK = 4096  # bytes of a message, by the protocol
_BAND = 6  # rows of pixels that a character of sixel holds


def contact_sheet(pictures: Sequence[bytes | None]) -> bytes:
    """A PNG of small pictures (JPEG or PNG) in rows of five, each over its number from 1.

    One that is None is left empty.
    """
    across = max(1, min(_ACROSS, len(pictures)))
    down = max(1, -(-len(pictures) // across))
    cell, high = _SIDE + _GAP, _SIDE + _LINE + _GAP
    sheet = Image.new("RGB", (across * cell, down * high), "white")
    draw = ImageDraw.Draw(sheet)
    for number, data in enumerate(pictures):
        x, y = number % across * cell, number // across * high
        if data:
            with Image.open(io.BytesIO(data)) as opened:
                small = opened.convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            sheet.paste(small, (x, y))
        draw.text((x, y + _SIDE), str(number + 1), fill="black")
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def in_terminal(png: bytes, protocol: str) -> str:
    """What a terminal of a protocol shows as the picture; a line break ends it."""
    if protocol == "kitty":
        return "".join(_kitty(base64.b64encode(png).decode("ascii"))) + "\n"
    if protocol == "iterm":
        data = base64.b64encode(png).decode("ascii")
        return f"\x1b]1337;File=inline=1;size={len(png)}:{data}\a\n"
    with Image.open(io.BytesIO(png)) as image:
        return sixel(image.convert("RGB").quantize(255)) + "\n"


def _kitty(data: str) -> Iterator[str]:
    """By https://sw.kovidgoyal.net/kitty/graphics-protocol: a PNG, shown at once, in chunks."""
    for start in range(0, len(data), _KITTY_CHUNK):
        more = int(start + _KITTY_CHUNK < len(data))
        control = f"a=T,f=100,q=2,m={more}" if start == 0 else f"m={more}"
        yield f"\x1b_G{control};{data[start : start + _KITTY_CHUNK]}\x1b\\"


def sixel(image: Image.Image) -> str:
    """A picture of mode P as DEC's VT340 takes it: bands of six rows, colour by colour."""
    pixels = np.asarray(image)
    palette = np.array(image.getpalette() or [], dtype=np.int64).reshape(-1, 3)
    lines = [f'\x1bPq"1;1;{image.width};{image.height}']
    used = np.unique(pixels).tolist()
    for colour in used:
        red, green, blue = (palette[colour] * 100 // 255).tolist()
        lines.append(f"#{colour};2;{red};{green};{blue}")
    bits = 1 << np.arange(_BAND)
    for top in range(0, image.height, _BAND):
        band = pixels[top : top + _BAND]
        drawn = []
        for colour in np.unique(band).tolist():
            columns = ((band == colour) * bits[: len(band), None]).sum(axis=0)
            drawn.append(f"#{colour}" + _runs(columns))
        lines.append("$".join(drawn) + "-")
    return "".join(lines) + "\x1b\\"


def _runs(columns: np.ndarray) -> str:
    """Sixels (n,) of 0 to 63 as text, of which longer runs are counted."""
    edges = np.flatnonzero(np.diff(columns)) + 1
    text = []
    for run in np.split(columns, edges):
        sign = chr(63 + int(run[0]))
        text.append(f"!{len(run)}{sign}" if len(run) > 3 else sign * len(run))
    return "".join(text)
