"""What both pages share: how strings are shown, the style sheet, the head.

Pages are single HTML files that need no network and no script: style sheet inside, pictures as
data: URIs, and a Content-Security-Policy that forbids everything else. File names and metadata come
from strangers, so every string passes through `text`, in attributes too.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from urllib.parse import unquote

Facts = Sequence[tuple[str, str]]

MAX_NAME = 44  # characters of a file name shown beside its picture; all of it is one click away
MAX_VALUE = 120  # characters of a metadata value


# Strings. Controls, lone surrogates and the marks that reorder text (a right-to-left override can
# make "gpj.exe" read "exe.jpg") are shown as escapes; all else stays as it is.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def visible(string: str) -> str:
    r"""The string with nothing in it that hides or reorders: "a\u202eb" becomes "a\\u202eb"."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", string)


def text(string: str) -> str:
    """The string for element content and for quoted attributes."""
    return html.escape(visible(string), quote=True)


def shorten(string: str, limit: int = MAX_NAME) -> str:
    """At most `limit` characters, "…" in the middle: the end of a name often tells most."""
    if len(string) <= limit:
        return string
    tail = (limit - 1) * 2 // 5
    return string[: limit - 1 - tail] + "…" + string[len(string) - tail :]


def short_name(uri: str) -> str:
    """The file name of a path or URI, readable and short enough for a caption."""
    last = uri.rstrip("/").rpartition("/")[2] or uri
    decoded = unquote(last, errors="replace")
    return shorten(visible(last if "\ufffd" in decoded else decoded))


# Pieces shared by both pages.
STYLE = """
:root { color-scheme: light dark; --page: #f6f5f2; --card: #fff; --ink: #23262b; --soft: #5d636d;
  --line: #e0ded8;
  --accent: #1d6f72; --track: #e6e4de; --empty: #ecebe6; --bad: #a3352b; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --card: #1f2226; --ink: #e6e5e1;
  --soft: #a3a8b0;
  --line: #32363c; --accent: #6fc3c0; --track: #343940; --empty: #292d32; --bad: #f0958a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 110rem; padding: clamp(1rem, 3vw, 2.5rem);
  background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: clamp(1.4rem, 3vw, 2rem); line-height: 1.2; font-weight: 650;
  letter-spacing: -.01em; margin: 0 0 .3rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1rem; line-height: 1.35; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
.soft, dt, th, caption, summary, footer { color: var(--soft); }
.bad { color: var(--bad); }
dl, figure, p { margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(8rem, 100%), 1fr));
  gap: .8rem 1.5rem;
  margin: 1.2rem 0 0; padding: 1rem 1.2rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }
dt { font-size: .8rem; }
.query { display: grid; gap: 1rem 1.8rem; padding: 1.8rem 0; border-top: 1px solid var(--line);
  content-visibility: auto; contain-intrinsic-size: auto 30rem; }
header + .query, header + section { margin-top: 2rem; }
.query > figure { max-width: 22rem; }
.query > figure img, .query > figure .none { border-radius: 10px; max-height: 26rem; }
.query figcaption { margin-top: .5rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(12rem, 46%), 1fr));
  gap: 1rem; margin: 0;
  padding: 0; list-style: none; align-content: start; }
.grid li { min-width: 0; }
img { display: block; max-width: 100%; background: var(--empty); }
.query > figure img { width: 100%; height: auto; object-fit: contain; }
.grid img, .grid .none { width: 100%; aspect-ratio: 4 / 3; object-fit: contain;
  border-radius: 8px; }
.none { display: grid; place-items: center; padding: .8rem; aspect-ratio: 4 / 3;
  background: var(--empty);
  color: var(--soft); border: 1px dashed var(--line); font-size: .8rem; text-align: center; }
.line { display: flex; justify-content: space-between; gap: .5rem;
  font-variant-numeric: tabular-nums; }
.line b { font-weight: 600; }
.bar { display: block; height: 3px; margin: .15rem 0 .3rem; border-radius: 2px;
  background: var(--track); }
.bar i { display: block; height: 100%; border-radius: 2px; background: var(--accent); }
.name { color: var(--ink); overflow-wrap: anywhere; font-size: .87rem; line-height: 1.35; }
details, .meta { font-size: .8rem; }
summary { cursor: pointer; border-radius: 4px; margin-left: 1.4em;
  list-style-position: outside; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
details p, details ul { margin: .2rem 0 .4rem; padding: 0; list-style: none;
  overflow-wrap: anywhere; user-select: all; }
details ul { user-select: auto; }
details li { user-select: all; padding: .1rem 0; }
.meta div { display: flex; flex-wrap: wrap; gap: 0 .4rem; }
.meta dt::after { content: ":"; }
.meta dd { min-width: 0; }
section.part { margin-top: 2.2rem; }
section.part h2 { margin-bottom: .6rem; font-size: 1.1rem; }
h3 { margin: 1.4rem 0 .5rem; font-size: .95rem; font-weight: 600; overflow-wrap: anywhere; }
.tiles figcaption { margin-top: .3rem; }
.more { font-size: .8rem; line-height: 1.35; overflow-wrap: anywhere; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(min(9rem, 46%), 1fr)); }
.wide { width: fit-content; max-width: 100%; overflow-x: auto;
  background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem clamp(.6rem, 2vw, 1.2rem); text-align: left; vertical-align: top;
  border-top: 1px solid var(--line); }
thead th { border-top: 0; font-size: .8rem; font-weight: 500; white-space: nowrap; }
tbody th { font-weight: 400; color: var(--ink); }
td.n, th.n { text-align: right; white-space: nowrap; }
td.long { overflow-wrap: anywhere; min-width: 8.5rem; }
.note { margin: .5rem 0; font-size: .87rem; overflow-wrap: anywhere; }
.plot { position: relative; height: clamp(12rem, 40vw, 18rem); max-width: 46rem;
  margin: 1.2rem 1rem 2.2rem 2.2rem; }
.plot.low { height: clamp(7rem, 24vw, 10rem); margin-left: 1rem; }
.plot svg { display: block; width: 100%; height: 100%; overflow: visible; }
.plot span { position: absolute; color: var(--soft); font-size: .75rem; line-height: 1;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.plot .y { right: calc(100% + .6rem); transform: translateY(-50%); }
.plot .x { top: calc(100% + .7rem); transform: translateX(-50%); }
.shares { display: flex; height: .7rem; max-width: 48rem; margin: .4rem 0; border-radius: 3px;
  overflow: hidden; background: var(--track); }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: 0 0 1.2rem; padding: 0;
  list-style: none; font-size: .87rem; font-variant-numeric: tabular-nums; }
.key i { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem;
  border-radius: 3px; }
.key b { font-weight: 600; }
details.sweep { margin-top: 1rem; }
.sweep summary { margin-bottom: .6rem; }
footer { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line);
  font-size: .8rem; }
@media (min-width: 60rem) { .query { grid-template-columns: 17rem minmax(0, 1fr); }
  .query > figure { position: sticky; top: 1.5rem; align-self: start; } }
@media print { .query { content-visibility: visible; break-inside: avoid; } }
"""


def head(title: str, facts: Facts, lead: str = "") -> str:
    """Everything up to the content: policy, style sheet, heading, facts and a lead sentence."""
    pairs = "".join(
        f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in facts
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{text(title)}</h1>\n"
        + (f'<p class="soft">{text(lead)}</p>\n' if lead else "")
        + (f'<dl class="facts">{pairs}</dl>\n' if pairs else "")
        + "</header>\n"
    )
