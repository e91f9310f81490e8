"""Files that systems and programs leave beside pictures, under names that look like pictures' own.

A Mac writes `._photo.jpg` beside `photo.jpg` on disks that are not its own (AppleDouble), a
Synology thumbnails into `@eaDir`: nobody means them when pictures are asked for.
"""

from __future__ import annotations

import re

_FOLDERS = frozenset({"@eadir", ".@__thumb", ".appledouble", "__macosx"})
"""Folders of nothing else, in lower case: thumbnails, and what files have beside their content."""
_NAMES = frozenset(
    {
        ".ds_store",
        ".localized",
        "icon\r",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        ".nomedia",
        ".gitkeep",
        ".keep",
    }
)
_APPLE_DOUBLE = (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")  # and AppleSingle
_PARTS = re.compile(r"[/\\#]")  # of a member's name too, which follows its tar's


def system_folder(name: str) -> str:
    """What a file is that lies in a folder of a system's own; "" where in none."""
    for part in _PARTS.split(name)[:-1]:
        if part.lower() in _FOLDERS:
            return f"it lies in {part}, a folder of a system's own"
    return ""


def system_name(name: str) -> str:
    """What a file is by its name, "" where it says nothing; a picture may all the same be in it."""
    last = _PARTS.split(name)[-1]
    if last.startswith("._"):
        return "named as what a Mac writes beside a file (AppleDouble)"
    return f"named as a system's own file ({last.strip()})" if last.lower() in _NAMES else ""


def system_content(data: bytes) -> str:
    """What a file is by its first bytes; "" where they do not say."""
    return "what a Mac writes beside a file (AppleDouble)" if data[:4] in _APPLE_DOUBLE else ""
