"""The sections of a report: what each is told of the facts; sections.html.jinja says it.

Facts may be those of another version, or make no sense, so each is read with care; every function
returns "" where there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lookalike.report.plots import draw_histogram, draw_shares
from lookalike.report.templates import draw
from lookalike.report.text import as_list, as_mapping, as_number, short_name, shown
from lookalike.sizes import size_text

Facts = Mapping[str, object]
Pictures = Mapping[str, bytes]

_TEMPLATE = "sections.html.jinja"
_LEDGER = {
    "embedded": "a vector was made in this run",
    "unchanged": "the vector is known from an earlier run",
    "duplicate": "the same bytes as another file, shown beside it",
    "rejected": "an image, or named like one, that gave no vector",
    "ignored": "no picture: by content and name, or as a system's own file, or empty",
}
_SHARES = ("unchanged", "changed", "removed", "added")
_SAMPLES = (
    ("added", "Added", "no picture"),
    ("changed", "Changed", "no picture"),
    ("renamed", "Renamed or copied: known by their content", "no picture"),
    ("removed", "Removed", "gone"),
)
_LISTS = {
    "min": "smallest",
    "p05": "5%",
    "median": "median",
    "p95": "95%",
    "max": "largest",
    "empty": "empty",
    "imbalance": "imbalance",
}


@dataclass(frozen=True)
class Tile:
    """A file among others; `without` stands where it has no picture, which is JPEG or PNG."""

    uri: str
    picture: bytes | None
    words: str
    without: str


# --- what became of the files ---------------------------------------------------------------------


def ledger_section(facts: Facts) -> str:
    """How many files of each status, and whether the sum holds."""
    counts = as_mapping(facts.get("counts"))
    before = as_mapping(as_mapping(facts.get("before")).get("counts"))
    rows = [
        (key, _count(counts, key), *([before.get(key, "")] if before else []), meaning)
        for key, meaning in _LEDGER.items()
    ]
    others = [
        f"{key}: {shown(value)}"
        for key, value in counts.items()
        if key not in ("listed", *_LEDGER) and as_number(value) is not None
    ]
    return draw(
        _TEMPLATE,
        "ledger",
        columns=("status", "files", *(["before"] if before else []), "meaning"),
        rows=rows,
        listed=_count(counts, "listed"),
        others="; ".join(others),
    )


def changes_section(facts: Facts, pictures: Pictures) -> str:
    """What changed since the snapshot before, with samples."""
    changes = as_mapping(facts.get("changes"))
    if not changes or not facts.get("parent"):
        return ""
    numbers = {key: _count(changes, key) for key in changes}
    unknown = ["unknown"] if numbers.get("unknown") else []
    others = [
        f"{key}: {n:,}"
        for key, n in numbers.items()
        if key not in ("previous", "unknown", *_SHARES)
    ]
    known, samples = as_mapping(facts.get("samples")), []
    for key, heading, without in _SAMPLES:
        tiles = _tiles(known.get(key), pictures, _reason, without)
        some = f": {len(tiles):,} of {numbers.get(key, 0):,}"
        samples.append((heading + some * (numbers.get(key, 0) > len(tiles)), tiles))
    return draw(
        _TEMPLATE,
        "changes",
        parent=str(facts["parent"]),
        shares=draw_shares([(key, numbers.get(key, 0)) for key in (*_SHARES, *unknown)], 0),
        previous=numbers.get("previous", 0),
        kept=[numbers.get(key, 0) for key in ("unchanged", "changed", "removed", *unknown)],
        others="; ".join(others),
        samples=samples,
    )


def rejects_section(facts: Facts, pictures: Pictures) -> str:
    """Rejected files by reason, with some of them and the words of the decoder."""
    reasons = as_mapping(as_mapping(facts.get("counts")).get("rejected_by_reason"))
    rows = as_mapping(facts.get("samples")).get("rejected")
    tiles = _tiles(rows, pictures, _reason, without=None)
    if not reasons and not tiles:
        return ""
    often = sorted(reasons.items(), key=lambda item: (-(as_number(item[1]) or 0), item[0]))
    return draw(_TEMPLATE, "rejects", reasons=often, tiles=tiles)


# --- the index ------------------------------------------------------------------------------------


def index_section(facts: Facts) -> str:
    """The index's parameters and why, how its lists are filled, and what its codes lose."""
    index, search = as_mapping(facts.get("index")), as_mapping(facts.get("search"))
    values = {**as_mapping(index.get("spec")), **index}
    reasons = [
        str(reason)
        for reason in (values.pop("why", None), *as_list(index.get("reasons")))
        if reason
    ]
    rows = [
        (key, shown(value))
        for key, value in values.items()
        if value not in (None, "") and not isinstance(value, (dict, list))
    ]
    rows += [(f"default {key}", shown(value)) for key, value in search.items() if value is not None]
    lists, codes = _lists(as_mapping(facts.get("lists"))), _codes(facts, index)
    if not (reasons or rows or lists or codes):
        return ""
    return draw(_TEMPLATE, "index", reasons=reasons, rows=rows, lists=lists, codes=codes)


def _lists(lists: Facts) -> str:
    plot = draw_histogram(
        lists.get("edges"), lists.get("counts"), "lists by their size, in words below"
    )
    sizes = [
        f"{name} {shown(lists[key])}"
        for key, name in _LISTS.items()
        if as_number(lists.get(key)) is not None
    ]
    lists_count = shown(lists.get("lists", ""))
    return plot and draw(_TEMPLATE, "lists", count=lists_count, plot=plot, sizes=", ".join(sizes))


def _codes(facts: Facts, index: Facts) -> str:
    codes = as_mapping(facts.get("codes"))
    sample, fresh = as_mapping(codes.get("sample")), as_mapping(codes.get("fresh"))
    plot = draw_histogram(
        codes.get("edges"),
        sample.get("counts"),
        "vectors by what their codes lose, in words below",
        over=fresh.get("counts", ()),
    )
    training = as_number(as_mapping(index.get("training")).get("quantisation_error"))
    losses = [
        f"{shown(one.get('rows', ''))} {name}: mean {shown(one.get('mean', ''))}, "
        f"95% under {shown(one.get('p95', ''))}"
        for one, name in ((sample, "vectors of all"), (fresh, "new ones"))
        if one
    ]
    losses += [f"in training: mean {training:.4g}"] if training is not None else []
    names = [("all", ""), *([("new", "")] if fresh else [])]
    return plot and draw(_TEMPLATE, "codes", plot=plot, names=names, losses="; ".join(losses))


def neighbours_section(facts: Facts, pictures: Pictures) -> str:
    """Near-duplicates and outliers among the vectors that were asked for their neighbours."""
    near = as_mapping(facts.get("neighbourhoods"))
    if not (asked := _count(near, "asked")):
        return ""
    nearest = as_mapping(near.get("nearest"))
    groups = []
    for group in map(as_mapping, as_list(near.get("groups"))):
        tiles = _tiles(group.get("members"), pictures, _newness)
        groups.append((_count(group, "size") or len(tiles), tiles))
    return draw(
        _TEMPLATE,
        "neighbours",
        asked=asked,
        fresh=_count(near, "fresh"),
        living=near.get("living", "?"),
        alike=str(near.get("alike", "")),
        with_near_duplicates=near.get("with_near_duplicates", 0),
        share=as_number(near.get("share")),
        plot=draw_histogram(
            nearest.get("edges"), nearest.get("counts"), "vectors by how like their nearest is"
        ),
        groups=groups,
        group_count=_count(near, "group_count"),
        outliers=_tiles(near.get("outliers"), pictures, _likeness),
    )


# --- how it was made ------------------------------------------------------------------------------


def features_section(facts: Facts) -> str:
    """The models, what is behind them, and both fingerprints."""
    rows = [
        (
            *(feature.get(key, "") for key in ("name", "handle", "weight")),
            as_mapping(feature.get("info")).get("dim", ""),
            str(feature.get("fingerprint", ""))[:16],
        )
        for feature in map(as_mapping, as_list(facts.get("features")))
    ]
    notes = [
        f"{key.replace('_', ' ')} {facts[key]}"
        for key in ("model_fingerprint", "preprocessing_fingerprint")
        if facts.get(key)
    ]
    if behind := as_mapping(facts.get("projection")):
        sizes = f"{behind.get('inputs', '')} to {behind.get('dim', '')} components"
        notes.insert(0, f"behind them the projection {behind.get('handle', '')}, {sizes}")
    return draw(_TEMPLATE, "features", rows=rows, notes=notes) if rows else ""


def stages_section(facts: Facts) -> str:
    """Seconds of each stage, and what it did in one where the number is known."""
    stages = {name: as_mapping(one) for name, one in as_mapping(facts.get("stages")).items()}
    seconds = {
        name: float(value)
        for name, one in stages.items()
        if (value := as_number(one.get("seconds"))) is not None
    }
    total = sum(seconds.values())
    rows = [
        (
            name,
            f"{value:,.2f}",
            f"{value / total:.0%}" if total else "",
            *(stages[name].get(key, "") for key in ("items", "rate")),
        )
        for name, value in seconds.items()
    ]
    return draw(_TEMPLATE, "stages", rows=rows, total=total) if rows else ""


def files_section(facts: Facts) -> str:
    """Files of the snapshot by kind."""
    kinds = {key: as_mapping(one) for key, one in as_mapping(facts.get("files")).items()}
    rows = [
        (key, _count(kind, "files"), _count(kind, "rows") or "", size_text(_count(kind, "bytes")))
        for key, kind in sorted(kinds.items())
    ]
    files, size = (sum(_count(kind, key) for kind in kinds.values()) for key in ("files", "bytes"))
    return draw(_TEMPLATE, "files", rows=rows, files=files, size=size_text(size)) if rows else ""


# --- what they share ------------------------------------------------------------------------------


def _count(values: Facts, key: str) -> int:
    return int(as_number(values.get(key)) or 0)


def _tiles(
    rows: object,
    pictures: Pictures,
    words: Callable[[Facts], str],
    without: str | None = "no picture",
) -> list[Tile]:
    """Tiles of a sample's rows; where `without` is None, a row's reason stands for a picture."""
    tiles = []
    for row in map(as_mapping, as_list(rows)):
        uri = str(row.get("uri") or "")
        instead = without or str(row.get("reason") or "rejected")
        tiles.append(Tile(uri, pictures.get(uri), words(row), instead))
    return tiles


def _reason(row: Facts) -> str:
    """Reason and detail of a row, or the other name that it has or had."""
    if row.get("previous"):
        return f"was {short_name(str(row['previous']))}"
    if row.get("status") == "duplicate":
        return f"same as {short_name(str(row.get('detail') or '?'))}"
    return ": ".join(str(row[key]) for key in ("reason", "detail") if row.get(key))


def _newness(row: Facts) -> str:
    return "new" if row.get("fresh") else ""


def _likeness(row: Facts) -> str:
    return ", ".join(filter(None, (f"nearest {shown(row.get('likeness', '?'))}", _newness(row))))
