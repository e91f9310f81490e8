"""Near-duplicate groups and outliers, as a section of a report."""

from __future__ import annotations

from collections.abc import Mapping

from lookalike.pages.histograms import draw_histogram
from lookalike.pages.parts import (
    as_heading,
    as_list,
    as_mapping,
    as_note,
    as_number,
    as_part,
    shown,
)
from lookalike.pages.tiles import Pictures, tile, tiles, uri_of


def nearby_part(facts: Mapping[str, object], pictures: Pictures) -> str:
    """The section; "" where nobody was asked for neighbours."""
    near = as_mapping(facts.get("neighbourhoods"))
    asked = int(as_number(near.get("asked")) or 0)
    if not asked:
        return ""
    share, fresh = as_number(near.get("share")), int(as_number(near.get("fresh")) or 0)
    of_sample = (
        f" ({share:.1%} of {'the others' if fresh else 'them'})" if share is not None else ""
    )
    words = [
        f"{asked:,} of {shown(near.get('living', '?'))} vectors asked the index for neighbours"
        + (f", {fresh:,} of them new" if fresh else ""),
        f"{shown(near.get('with_near_duplicates', 0))} of those have a near-duplicate: "
        f"{near.get('alike', '')}, other bytes{of_sample}",
    ]
    nearest = as_mapping(near.get("nearest"))
    drawn = draw_histogram(
        nearest.get("edges"), nearest.get("counts"), "vectors by how like their nearest is"
    )
    return as_part(
        "Neighbours",
        *map(as_note, words),
        as_heading("How like the nearest is") + drawn if drawn else "",
        _groups(near, pictures),
        _outliers(near, pictures),
    )


def _groups(near: Mapping[str, object], pictures: Pictures) -> str:
    groups = [as_mapping(group) for group in as_list(near.get("groups"))]
    if not groups:
        return ""
    count = int(as_number(near.get("group_count")) or len(groups))
    some = f": {len(groups):,} of {count:,} groups found" if count > len(groups) else ""
    parts = [as_heading(f"Near-duplicates{some}")]
    for number, group in enumerate(groups, start=1):
        members = [as_mapping(member) for member in as_list(group.get("members"))]
        size = int(as_number(group.get("size")) or len(members))
        more = f", {len(members):,} of them shown" if size > len(members) else ""
        parts += [
            as_note(f"group {number}: {size:,} files{more}"),
            tiles(
                tile(uri_of(one), pictures, words="new" if one.get("fresh") else "")
                for one in members
            ),
        ]
    return "".join(parts)


def _outliers(near: Mapping[str, object], pictures: Pictures) -> str:
    rows = [as_mapping(row) for row in as_list(near.get("outliers"))]
    some = tiles(
        tile(
            uri_of(row),
            pictures,
            words=f"nearest {shown(row.get('likeness', '?'))}{', new' if row.get('fresh') else ''}",
        )
        for row in rows
    )
    if not some:
        return ""
    return (
        as_heading("Outliers")
        + as_note("of those asked, the ones whose nearest neighbour is least like them")
        + some
    )
