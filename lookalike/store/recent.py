"""The values used last, kept up to a weight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The values used last, up to a weight; not for several threads at once."""

    def __init__(self, limit: int, weigh: Callable[[V], int] = lambda _: 1) -> None:
        self._limit, self._weigh, self._weight = limit, weigh, 0
        self.values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, which then counts as used; None where it is not kept."""
        value = self.values.get(key)
        if value is not None:
            self.values.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep a value, and in its place those used longest ago no more; the last one stays."""
        if key in self.values:  # two threads made it
            return
        self.values[key] = value
        self._weight += self._weigh(value)
        while self._weight > self._limit and len(self.values) > 1:
            self._weight -= self._weigh(self.values.popitem(last=False)[1])
