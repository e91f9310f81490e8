"""What a query asks, of JSON, of a form's fields or of a URL's, checked before anything is done.

The same names everywhere; a text stands for the number or the list that it says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lookalike.errors import RequestError
from lookalike.images.cropping import Crop, asked_crop
from lookalike.search.ways import asked_ways
from lookalike.serve.limits import Limits
from lookalike.serve.query import FORMATS, Asked
from lookalike.serve.values import asked_count, asked_id, asked_number, asked_picture, asked_text

_LONGEST_URI = 4096


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


# --- fields ------------------------------------------------------------------------------------


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
