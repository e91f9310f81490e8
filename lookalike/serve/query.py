"""What one query asks, and which queries can be answered together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lookalike.errors import RequestError
from lookalike.images.cropping import Crop
from lookalike.search.ways import Ways
from lookalike.serve.limits import Limits

FORMATS = ("json", "jsonl", "csv", "parquet")
"""Of an answer."""


class Alike(NamedTuple):
    """What is asked of each query of a batch; see `Asked`."""

    k: int
    where: str | None
    ways: Ways


@dataclass(frozen=True)
class Asked:
    """One query: rows, and pictures that were uploaded (sha256), to be like or unlike, and how."""

    ids: tuple[int, ...] = ()
    uris: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    unlike_ids: tuple[int, ...] = ()
    unlike_pictures: tuple[str, ...] = ()
    k: int = 10
    where: str | None = None
    crop: Crop | None = None
    ways: Ways = field(default_factory=Ways)
    format: str = "json"

    @property
    def decodes(self) -> bool:
        """Whether pictures are decoded for it."""
        return bool(self.pictures or self.unlike_pictures or self.crop is not None)

    @property
    def alike(self) -> Alike | None:
        """What queries of one row each have in common where one batch can answer them.

        None where it has to be answered by itself.
        """
        single = len(self.ids) + len(self.uris) == 1 and not (self.unlike_ids or self.decodes)
        if not single or self.ways.together or self.ways.weights:
            return None
        return Alike(self.k, self.where, self.ways)

    def check(self, limits: Limits) -> Asked:
        """This, where there is a query and not too much of it; several pictures are one query.

        Raises:
            RequestError: There is none, or too much.
        """
        likes = len(self.ids) + len(self.uris) + len(self.pictures)
        if not likes:
            raise RequestError(
                "there is no query: send pictures as `image`, or name `id`, `uri` or `picture`"
            )
        for count, what in (
            (likes, "to be like"),
            (len(self.unlike_ids) + len(self.unlike_pictures), "to be unlike"),
        ):
            if count > limits.pictures:
                raise RequestError(
                    f"{count} pictures {what}; one query takes {limits.pictures} at most"
                )
        if likes > 1 and self.ways.together is None:
            return replace(self, ways=replace(self.ways, together="mean"))
        return self
