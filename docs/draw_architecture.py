"""Draw docs/architecture.svg, the data flow of a run and of a query.

python docs/draw_architecture.py
"""

from __future__ import annotations

from html import escape
from pathlib import Path

PICTURE = Path(__file__).with_name("architecture.svg")

# Stages in the order of a run: name, what it does, what it leaves (folder, then what lies there).
STAGES = (
    ("scan", ("list sources,", "find what changed"), ("runs/", "work units")),
    ("embed", ("decode, resize,", "run the models"), ("embeddings/", "rows and vectors")),
    ("settle", ("one row for equal", "contents; deletions"), ("tombstones", "deleted ids")),
    ("train", ("plan the index,", "train on a sample"), ("templates/", "trained index")),
    ("encode", ("codes; and exact", "nearest neighbours"), ("runs/", "parts of the index")),
    ("group", ("put the parts", "together by list"), ("index/", "inverted lists")),
    ("certify", ("recall over a", "sweep of settings"), ("truth.npz", "ground truth")),
    ("publish", ("ledger, report,", "manifest, pointer"), ("snapshots/", "manifest; CURRENT")),
)
QUERY = (
    ("embed query", ("the same decoding,", "the models stored")),
    ("choose lists", ("distance to all", "centroids")),
    ("scan codes", ("mapped lists give", "candidates")),
    ("re-rank", ("exact scores of", "stored vectors")),
    ("answer", ("uri, score, id,", "duplicates, columns")),
)
# What each step of a query reads, by the number of the stage that left it.
READS = ((1, 3), (2, 5), (4, 7), (3, 1))

WIDTH, STEP, BOX, LEFT = 1200, 146, 130, 24
RUN_Y, STORE_Y, QUERY_Y, BOX_H, FILE_H = 64, 190, 380, 74, 54

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1d2025 }
  .name { font-weight: 600; font-size: 14px }
  .file { font-family: ui-monospace, monospace; font-size: 12.5px }
  .small { font-size: 12px; fill: #565d66 }
  .box { fill: #e3f0ef; stroke: #1c6b72 }
  .store { fill: #f3ecdd; stroke: #a07c2c }
  .query { fill: #e7e9f6; stroke: #4a559e }
  line, polyline { stroke: #737a84; stroke-width: 1.4; fill: none; marker-end: url(#head) }
  .reads { stroke-dasharray: 4 3 }
  .paper { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e8eaed } .small { fill: #a9b0ba } .paper { fill: #14171b }
    .box { fill: #17373a } .store { fill: #3a311b } .query { fill: #262b4c }
  }
"""


def box(x: int, y: int, height: int, kind: str, name: str, lines: tuple[str, ...]) -> list[str]:
    """A box with a name and lines below it, centred."""
    middle, top = x + BOX // 2, y + 22
    head = "file" if kind == "store" else "name"
    return [
        f'<rect class="{kind}" x="{x}" y="{y}" width="{BOX}" height="{height}" rx="6"/>',
        f'<text class="{head}" x="{middle}" y="{top}" text-anchor="middle">{escape(name)}</text>',
        *(
            f'<text class="small" x="{middle}" y="{top + 18 * number}" '
            f'text-anchor="middle">{escape(line)}</text>'
            for number, line in enumerate(lines, 1)
        ),
    ]


def arrow(*points: tuple[int, int], kind: str = "") -> str:
    """A line through points, with a head at its end."""
    places = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline class="{kind}" points="{places}"/>'


def label(x: int, y: int, text: str) -> str:
    """Small text that begins at a point."""
    return f'<text class="small" x="{x}" y="{y}">{escape(text)}</text>'


def column(number: int) -> int:
    """Left edge of the box with a number."""
    return LEFT + number * STEP


def draw() -> str:
    """The whole picture, as text."""
    parts = [label(LEFT, 36, "lookalike index: images or vectors in, one published snapshot out")]
    for number, (name, lines, (file, content)) in enumerate(STAGES):
        x = column(number)
        parts += box(x, RUN_Y, BOX_H, "box", name, lines)
        parts += box(x, STORE_Y, FILE_H, "store", file, (content,))
        parts.append(arrow((x + BOX // 2, RUN_Y + BOX_H), (x + BOX // 2, STORE_Y - 3)))
        if number:
            parts.append(arrow((x - STEP + BOX, RUN_Y + BOX_H // 2), (x - 3, RUN_Y + BOX_H // 2)))
    parts.append(label(LEFT, STORE_Y + FILE_H + 22, "the store: folder or bucket"))
    first = 1  # queries begin below the second stage
    for number, (name, lines) in enumerate(QUERY):
        x = column(number + first)
        parts += box(x, QUERY_Y, BOX_H, "query", name, lines)
        if number:
            y = QUERY_Y + BOX_H // 2
            parts.append(arrow((x - STEP + BOX, y), (x - 3, y)))
    for at, (step, stage) in enumerate(READS):
        start, end = column(stage) + BOX // 2, column(step + first) + BOX // 2
        lane = STORE_Y + FILE_H + 38 + 16 * at
        points = ((start, STORE_Y + FILE_H), (start, lane), (end, lane), (end, QUERY_Y - 3))
        parts.append(arrow(*points, kind="reads"))
    parts.append(label(LEFT, QUERY_Y - 18, "lookalike query"))
    height = QUERY_Y + BOX_H + 24
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            "<title>How a run fills a store, and what a query reads of it</title>",
            f"<style>{STYLE}</style>",
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#737a84"/></marker>',
            f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
