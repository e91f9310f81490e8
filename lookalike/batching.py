"""Consecutive items that are taken together, by what they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def up_to(items: Iterable[tuple[_Item, int]], most: int) -> Iterator[tuple[_Item, ...]]:
    """Groups of at most `most` together; an item that is more by itself is a group of its own.

    Sizes 3, 4, 2, 9 with at most 6 become groups of 3, of 4 and 2, and of 9.

    Args:
        items: Each with its size.
        most: Of a group.
    """
    group: list[_Item] = []
    held = 0
    for item, size in items:
        if group and held + size > most:
            yield tuple(group)
            group, held = [], 0
        group.append(item)
        held += size
    if group:
        yield tuple(group)


def at_least(items: Iterable[tuple[_Item, int]], least: int) -> Iterator[tuple[_Item, ...]]:
    """Groups of `least` or a little more together; the last may have less.

    Sizes 3, 4, 2, 9 with at least 6 become groups of 3 and 4, and of 2 and 9.

    Args:
        items: Each with its size.
        least: Of a group.
    """
    group: list[_Item] = []
    held = 0
    for item, size in items:
        group.append(item)
        held += size
        if held >= least:
            yield tuple(group)
            group, held = [], 0
    if group:
        yield tuple(group)
