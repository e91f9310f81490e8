"""What is inside a snapshot: its index with plots of lists and codes, features, times, files."""

from __future__ import annotations

from collections.abc import Mapping

from lookalike.pages.histograms import draw_histogram, legend
from lookalike.pages.parts import (
    as_heading,
    as_list,
    as_mapping,
    as_note,
    as_number,
    as_part,
    as_table,
    shown,
)
from lookalike.sizes import size_text


def index_part(facts: Mapping[str, object]) -> str:
    """The index's parameters and why, how its lists are filled, and what its codes lose."""
    index, search = as_mapping(facts.get("index")), as_mapping(facts.get("search"))
    spec = {
        **as_mapping(index.get("spec")),
        **{key: value for key, value in index.items() if key != "spec"},
    }
    rows: list[tuple[str, str]] = [
        (key, shown(value))
        for key, value in spec.items()
        if value not in (None, "") and not isinstance(value, (dict, list))
    ]
    rows += [("why", str(reason)) for reason in as_list(index.get("reasons"))]
    rows += [(f"default {key}", shown(value)) for key, value in search.items() if value is not None]
    parts = [as_table(("parameter", "value"), rows)] if rows else []
    parts += [_lists(as_mapping(facts.get("lists"))), _codes(facts, index)]
    return as_part("Index", *parts) if any(parts) else ""


def _lists(lists: Mapping[str, object]) -> str:
    drawn = draw_histogram(
        lists.get("edges"), lists.get("counts"), "lists by their size, in words below"
    )
    if not drawn:
        return ""
    words = ", ".join(
        f"{name} {shown(lists[key])}"
        for key, name in (("min", "smallest"), ("p05", "5%"), ("median", "median"), ("p95", "95%"),
                          ("max", "largest"), ("empty", "empty"), ("imbalance", "imbalance"))
        if as_number(lists.get(key)) is not None
    )  # fmt: skip
    return (
        as_heading(f"Sizes of the {shown(lists.get('lists', ''))} lists")
        + drawn
        + as_note(
            f"vectors in a list: {words} (1 is even: as many lists hold so many times "
            "the codes that even ones would)"
        )
    )


def _codes(facts: Mapping[str, object], index: Mapping[str, object]) -> str:
    codes = as_mapping(facts.get("codes"))
    sample, fresh = as_mapping(codes.get("sample")), as_mapping(codes.get("fresh"))
    drawn = draw_histogram(
        codes.get("edges"),
        sample.get("counts"),
        "vectors by what their codes lose, in words below",
        over=fresh.get("counts", ()),
    )
    if not drawn:
        return ""
    training = as_number(as_mapping(index.get("training")).get("quantisation_error"))
    words = [
        f"{shown(one.get('rows', ''))} {name}: mean {shown(one.get('mean', ''))}, "
        f"95% under {shown(one.get('p95', ''))}"
        for one, name in ((sample, "vectors of all"), (fresh, "new ones"))
        if one
    ]
    words += [f"in training: mean {training:.4g}"] if training is not None else []
    names = {"all": "var(--accent)", **({"new": "var(--bad)"} if fresh else {})}
    return (
        as_heading("What codes lose")
        + drawn
        + legend(names)
        + as_note(
            f"share of a vector's squared length that its code does not hold; {'; '.join(words)}"
        )
    )


def features_part(facts: Mapping[str, object]) -> str:
    """The models, what is behind them, and both fingerprints."""
    rows = []
    for feature in map(as_mapping, as_list(facts.get("features"))):
        info = as_mapping(feature.get("info"))
        rows.append(
            [
                feature.get("name", ""),
                feature.get("handle", ""),
                feature.get("weight", ""),
                info.get("dim", ""),
                str(feature.get("fingerprint", ""))[:16],
            ]
        )
    if not rows:
        return ""
    prints = [
        f"{key.replace('_', ' ')} {facts[key]}"
        for key in ("model_fingerprint", "preprocessing_fingerprint")
        if facts.get(key)
    ]
    if behind := as_mapping(facts.get("projection")):
        sizes = f"{behind.get('inputs', '')} to {behind.get('dim', '')} components"
        prints.insert(0, f"behind them the projection {behind.get('handle', '')}, {sizes}")
    return as_part(
        "Features",
        as_table(("name", "handle", "weight", "dim", "fingerprint"), rows),
        *map(as_note, prints),
    )


def stages_part(facts: Mapping[str, object]) -> str:
    """Seconds of each stage, and what it did in one where the number is known."""
    rows = []
    for name, stage in as_mapping(facts.get("stages")).items():
        known = as_mapping(stage)
        seconds = as_number(known.get("seconds"))
        if seconds is not None:
            rows.append((name, float(seconds), known.get("items", ""), known.get("rate", "")))
    if not rows:
        return ""
    total = sum(row[1] for row in rows)
    body = [
        (name, f"{seconds:,.2f}", f"{seconds / total:.0%}" if total else "", items, rate)
        for name, seconds, items, rate in rows
    ]
    return as_part(
        "Time",
        as_table(("stage", "seconds", "share", "files", "files per second"), body),
        as_note(
            f"{total:,.1f} s in all, in the process that published; without what was done before"
        ),
    )


def files_part(facts: Mapping[str, object]) -> str:
    """Files of the snapshot by kind."""
    kinds = {key: as_mapping(one) for key, one in as_mapping(facts.get("files")).items()}
    if not kinds:
        return ""

    def number(kind: Mapping[str, object], key: str) -> int:
        return int(as_number(kind.get(key)) or 0)

    table = [
        (key, number(kind, "files"), number(kind, "rows") or "", size_text(number(kind, "bytes")))
        for key, kind in sorted(kinds.items())
    ]
    files, size = (sum(number(kind, key) for kind in kinds.values()) for key in ("files", "bytes"))
    return as_part(
        "Files of the snapshot",
        as_table(("kind", "files", "rows", "size"), table),
        as_note(f"{files:,} files, {size_text(size)}, but for this report"),
    )
