"""The report of a snapshot: what became of the files, the index and its certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lookalike.faults import Faults
from lookalike.report import sections
from lookalike.report.certificate import certificate_line, certificate_section
from lookalike.report.templates import draw
from lookalike.report.text import as_mapping, as_number, shown


def render_report(
    facts: Mapping[str, object],
    pictures: sections.Pictures | None = None,
    faults: Faults | None = None,
) -> str:
    """The page of one snapshot.

    Args:
        facts: As in report.json; parts that are missing are left out. `faults` names facts that
            could not be had, and why.
        pictures: Small JPEG or PNG files by the names of the files that they show.
        faults: Takes note of sections that cannot be made; each has a note in its place.
    """
    certificate, small = as_mapping(facts.get("certificate")), pictures or {}
    made, lost = faults or Faults(), as_mapping(facts.get("faults"))
    line = made.spare("certificate line", lambda: certificate_line(certificate), "not known")
    # Every section, and the facts that it is sections.
    parts: tuple[tuple[str, tuple[str, ...], Callable[[], str]], ...] = (
        ("Changes", ("samples",), lambda: sections.changes_section(facts, small)),
        ("Files", (), lambda: sections.ledger_section(facts)),
        ("Rejected", (), lambda: sections.rejects_section(facts, small)),
        ("Certificate", (), lambda: certificate_section(certificate, line)),
        ("Index", ("lists", "codes"), lambda: sections.index_section(facts)),
        ("Neighbours", ("neighbourhoods",), lambda: sections.neighbours_section(facts, small)),
        ("Time", ("stages",), lambda: sections.stages_section(facts)),
        ("Features", (), lambda: sections.features_section(facts)),
        ("Files of the snapshot", ("files",), lambda: sections.files_section(facts)),
    )
    title = f"Snapshot {facts.get('name') or ''}".strip()
    summary = made.spare("summary", lambda: _summary(facts, line), [])
    pieces = [draw("page.html.jinja", "head", title=title, facts=summary)]
    for heading, keys, make in parts:
        content = made.spare(f"section {heading}", make, "")
        why = [made.noted.get(f"section {heading}"), *(lost.get(key) for key in keys)]
        if reasons := [str(one) for one in why if one]:
            content += draw("sections.html.jinja", "left_out", heading=heading, reasons=reasons)
        pieces.append(content)
    return "".join([*pieces, draw("page.html.jinja", "foot", words="lookalike")])


def _summary(facts: Mapping[str, object], line: str) -> list[tuple[str, str]]:
    counts = as_mapping(facts.get("counts"))
    labels = {"created": "created", "parent": "parent", "metric": "metric", "dim": "dimensions"}
    known = [
        (label, shown(facts[key])) for key, label in labels.items() if facts.get(key) is not None
    ]
    if as_number(counts.get("vectors")) is not None:
        known.append(("vectors", shown(counts["vectors"])))
    return [*known, ("certificate", line)]
