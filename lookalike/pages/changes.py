"""What became of the files: the ledger, what changed since the snapshot before, and rejects."""

from __future__ import annotations

from collections.abc import Mapping

from lookalike.pages.curves import draw_shares
from lookalike.pages.markup import short_name
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
from lookalike.pages.tiles import Pictures, tile, tiles, uri_of

LEDGER = ("embedded", "unchanged", "duplicate", "rejected", "ignored")
_MEANINGS = {
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


def ledger_part(facts: Mapping[str, object]) -> str:
    """How many files of each status, and whether the sum holds."""
    counts = as_mapping(facts.get("counts"))
    before = as_mapping(as_mapping(facts.get("before")).get("counts"))
    numbers = {key: int(as_number(counts.get(key)) or 0) for key in ("listed", *LEDGER)}
    rows = [(key, numbers[key], _MEANINGS[key]) for key in LEDGER]
    columns: tuple[str, ...] = ("status", "files", "meaning")
    if before:
        columns = ("status", "files", "before", "meaning")
        rows = [(key, n, before.get(key, ""), words) for key, n, words in rows]  # type: ignore[misc]
    others = [
        f"{key}: {shown(value)}"
        for key, value in counts.items()
        if key not in numbers and as_number(value) is not None
    ]
    return as_part(
        "Files",
        as_table(columns, rows),
        _sum_line(numbers["listed"], [numbers[key] for key in LEDGER], "listed", "the ledger"),
        as_note("; ".join(others)) if others else "",
    )


def changes_part(facts: Mapping[str, object], pictures: Pictures) -> str:
    """What changed since the snapshot before, with samples; "" where there was none."""
    changes = as_mapping(facts.get("changes"))
    if not changes or not facts.get("parent"):
        return ""
    numbers = {key: int(as_number(value) or 0) for key, value in changes.items()}
    kept = [numbers.get(key, 0) for key in ("unchanged", "changed", "removed")]
    shares = [(key, float(numbers.get(key, 0))) for key in _SHARES]
    if unknown := numbers.get("unknown", 0):
        kept.append(unknown)
        shares.append(("unknown", float(unknown)))
    drawn = ("previous", "unknown", *_SHARES)
    others = [f"{key}: {n:,}" for key, n in numbers.items() if key not in drawn]
    parts = [
        draw_shares(shares, 0),
        _sum_line(numbers.get("previous", 0), kept, "before", "the comparison"),
        as_note("; ".join(others)) if others else "",
    ]
    samples = as_mapping(facts.get("samples"))
    for key, heading, without in _SAMPLES:
        rows = [as_mapping(row) for row in as_list(samples.get(key))]
        some = tiles(
            tile(uri_of(row), pictures, without=without, words=_words(row)) for row in rows
        )
        if some:
            parts += [as_heading(_of(heading, len(rows), numbers.get(key))), some]
    return as_part(f"Since {facts['parent']}", *parts)


def rejects_part(facts: Mapping[str, object], pictures: Pictures) -> str:
    """Rejected files by reason, with some of them and the words of the decoder."""
    reasons = as_mapping(as_mapping(facts.get("counts")).get("rejected_by_reason"))
    rows = [as_mapping(row) for row in as_list(as_mapping(facts.get("samples")).get("rejected"))]
    if not reasons and not rows:
        return ""
    by_number = sorted(reasons.items(), key=lambda item: (-(as_number(item[1]) or 0), item[0]))
    parts = [as_table(("reason", "files"), by_number)] if by_number else []
    some = tiles(
        tile(uri_of(row), pictures, without=str(row.get("reason") or "rejected"), words=_words(row))
        for row in rows
    )
    if some:
        parts += [
            as_note("some of them; what there is of a picture that ends early is shown"),
            some,
        ]
    return as_part("Rejected", *parts)


def _sum_line(total: int, parts: list[int], word: str, what: str) -> str:
    """The sum in words, as an accusation where it does not hold."""
    added = " + ".join(f"{part:,}" for part in parts)
    if sum(parts) == total:
        return as_note(f"{total:,} {word} = {added}: {what} balances")
    wrong = f"{total:,} {word}, but {added} = {sum(parts):,}: {what} does not balance"
    return as_note(wrong, bad=True)


def _words(row: Mapping[str, object]) -> str:
    """Reason and detail of a row, or the other name that it has or had."""
    if row.get("previous"):
        return f"was {short_name(str(row['previous']))}"
    if row.get("status") == "duplicate":
        return f"same as {short_name(str(row.get('detail') or '?'))}"
    return ": ".join(str(row[key]) for key in ("reason", "detail") if row.get(key))


def _of(heading: str, there: int, total: int | None) -> str:
    return heading if not total or total <= there else f"{heading}: {there:,} of {total:,}"
