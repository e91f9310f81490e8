"""Bytes in words."""

from __future__ import annotations

from math import ceil

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def size_text(count: float) -> str:
    """Bytes for people: 512 bytes, 1.5 MiB."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} {_UNITS[-1]}"


def size_setting(count: int) -> str:
    """At least so many bytes, as a config may say it: 38GiB."""
    power = max(0, min(4, (count.bit_length() - 4) // 10))
    return f"{ceil(count / 1024**power)}{_UNITS[power] if power else 'B'}"
