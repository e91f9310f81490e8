"""What a request asks, of JSON, of a form's fields or of a URL's, checked before anything is done.

The same names everywhere; a text stands for the number or the list that it says.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from lookalike.errors import RequestError
from lookalike.images.cropping import Crop, asked_crop
from lookalike.search.ways import Ways, asked_ways
from lookalike.serve.limits import Limits

FORMATS = ("json", "jsonl", "csv", "parquet")
_PICTURE = re.compile("[0-9a-f]{64}")
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_LONGEST_ID = 2**63
_LONGEST_URI = 4096


class Alike(NamedTuple):
    """What is asked of each query of a batch; see `Asked`."""

    k: int
    where: str | None
    ways: Ways


@dataclass(frozen=True)
class Asked:
    """One query.

    Attributes:
        ids: Rows of the store to be like.
        uris: The same by name.
        pictures: sha256 of pictures that were uploaded, to be like.
        unlike_ids: Rows to be unlike.
        unlike_pictures: Pictures that were uploaded, to be unlike.
        k: Neighbours.
        where: A condition.
        crop: The part of each picture to search by.
        ways: How to ask.
        format: Of the answer.
    """

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


def asked_json(body: bytes, limits: Limits) -> Asked:
    """A query of a JSON object (see `asked`).

    Raises:
        RequestError: It is no JSON object, or asks what cannot be asked.
    """
    try:
        found = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise RequestError(f"the body is a JSON {type(found).__name__}, and needs to be an object")
    return asked({name: value for name, value in found.items() if value is not None}, limits)


def asked_texts(pairs: Iterable[tuple[str, str]], limits: Limits) -> Asked:
    """A query of named texts: `id`, `uri`, `picture` and `unlike` may come several times.

    Raises:
        RequestError: They ask what cannot be asked.
    """
    found: dict[str, Any] = {}
    for name, text in pairs:
        if name in ("id", "uri", "picture", "unlike"):
            found.setdefault(name, []).append(text)
        elif name in found:
            raise RequestError(f"{name}: is there twice")
        elif text != "":
            found[name] = text
    return asked(found, limits)


def asked(fields: Mapping[str, Any], limits: Limits) -> Asked:
    """A query of named values.

    Raises:
        RequestError: A name or a value is none that a query has.
    """
    for name in fields:
        if name not in FIELDS:
            raise RequestError(f"there is no field {name!r:.80}; there are {', '.join(FIELDS)}")
    value = {name: FIELDS[name](name, given, limits) for name, given in fields.items()}
    unlike = value.get("unlike", ())
    ways = (
        "together",
        "weights",
        "min_score",
        "group_by",
        "per_group",
        "diversify",
        "exclude_self",
    )
    plain = ("k", "where", "crop", "format")
    return Asked(
        value.get("id", ()),
        value.get("uri", ()),
        value.get("picture", ()),
        tuple(one for one in unlike if isinstance(one, int)),
        tuple(one for one in unlike if isinstance(one, str)),
        ways=asked_ways(**{name: value[name] for name in ways if name in value}),
        **{name: value[name] for name in plain if name in value},
    )


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


# --- single values ------------------------------------------------------------------------------


def asked_id(name: str, value: Any) -> int:
    """A row's id, of a number or its text.

    Raises:
        RequestError: It is none.
    """
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LONGEST_ID:
        raise RequestError(f"{name}: needs the id of a row, a whole number; got {value!r:.80}")
    return value


def asked_count(name: str, value: Any, most: int, least: int = 1) -> int:
    """A whole number within bounds, of a number or its text.

    Raises:
        RequestError: It is none.
    """
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RequestError(
            f"{name}: needs a whole number from {least} to {most:,}, got {value!r:.80}"
        )
    return value


def asked_number(name: str, value: Any) -> float:
    """A finite number, of a number or its text.

    Raises:
        RequestError: It is none.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(f"{name}: needs a finite number, got {value!r:.80}")
    return number


def asked_text(name: str, value: Any, most: int) -> str:
    """A text that is not longer than that.

    Raises:
        RequestError: It is none, or no Unicode.
    """
    if not isinstance(value, str):
        raise RequestError(f"{name}: needs a text, got {value!r:.80}")
    if len(value) > most:
        raise RequestError(f"{name}: has {len(value):,} characters, {most:,} at most are taken")
    if "\0" in value or any("\ud800" <= one <= "\udfff" for one in value):
        raise RequestError(f"{name}: holds characters that are in no text: {value!r:.80}")
    return value


def asked_picture(name: str, value: Any) -> str:
    """The sha256 of a picture that was uploaded.

    Raises:
        RequestError: It is none.
    """
    if not isinstance(value, str) or not _PICTURE.fullmatch(value):
        raise RequestError(
            f"{name}: needs the sha256 of a picture that was uploaded, 64 digits of 0-9 and a-f; "
            f"got {value!r:.80}"
        )
    return value


def _each(one: Callable[[str, Any], Any]) -> Callable[[str, Any, Limits], tuple[Any, ...]]:
    """A value, or a list of some."""

    def some(name: str, value: Any, limits: Limits) -> tuple[Any, ...]:
        values = value if isinstance(value, list) else [value]
        if len(values) > limits.pictures:
            raise RequestError(f"{name}: takes {limits.pictures} at most, got {len(values)}")
        return tuple(dict.fromkeys(one(name, each) for each in values))

    return some


def _row_or_picture(name: str, value: Any) -> int | str:
    if isinstance(value, str) and len(value) == 64:
        return asked_picture(name, value)
    return asked_id(name, value)


def _crop(name: str, value: Any, limits: Limits) -> Crop | None:
    if isinstance(value, list) and not all(_is_number(side) for side in value):
        raise RequestError(f"{name}: needs four numbers, got {value!r:.80}")
    return asked_crop(value)


def _weights(name: str, value: Any, limits: Limits) -> Any:
    if isinstance(value, str):
        return asked_text(name, value, limits.where)
    if isinstance(value, Mapping) and all(_is_number(one) for one in value.values()):
        return value
    raise RequestError(
        f"{name}: needs a number for each feature, as low=.3,deep=.7 or an object; "
        f"got {value!r:.80}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _truth(name: str, value: Any, limits: Limits) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    found = known.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise RequestError(f"{name}: needs true or false, got {value!r:.80}")
    return found


def _balance(name: str, value: Any, limits: Limits) -> float | bool:
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false")):
        return _truth(name, value, limits)
    return asked_number(name, value)


def _word(words: Sequence[str]) -> Callable[[str, Any, Limits], str]:
    def one(name: str, value: Any, limits: Limits) -> str:
        if value not in words:
            raise RequestError(f"{name}: needs one of {', '.join(words)}; got {value!r:.80}")
        return str(value)

    return one


FIELDS: Mapping[str, Callable[[str, Any, Limits], Any]] = {
    "id": _each(asked_id),
    "uri": _each(lambda name, value: asked_text(name, value, _LONGEST_URI)),
    "picture": _each(asked_picture),
    "unlike": _each(_row_or_picture),
    "k": lambda name, value, limits: asked_count(name, value, limits.k),
    "where": lambda name, value, limits: asked_text(name, value, limits.where),
    "crop": _crop,
    "weights": _weights,
    "together": _word(("mean", "max")),
    "min_score": lambda name, value, limits: asked_number(name, value),
    "group_by": lambda name, value, limits: asked_text(name, value, limits.where),
    "per_group": lambda name, value, limits: asked_count(name, value, limits.k),
    "diversify": _balance,
    "exclude_self": _truth,
    "format": _word(FORMATS),
}
"""How each field of a query is read."""
