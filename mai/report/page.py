"""The frame of an HTML page: one file, nothing fetched, no text of others obeyed, light and dark, phone to desk.

A content security policy names the page's own style and script by their hashes and forbids all else, so that even
a mistake in escaping would not run. It forbids style attributes too: places and sizes are SVG attributes.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence

from mai.report.escape import visible
from mai.types import Label, Record

STYLE = """
:root { color-scheme: light dark; --ground: #f3f5f7; --card: #fff; --ink: #1b2127; --soft: #57616b; --line: #d8dee4;
  --link: #1f5fa8; --synthetic: #b3261e; --authentic: #1c6b3f; --inconclusive: #855300; --none: #6a4590;
  --fill: #e9edf1 }
@media (prefers-color-scheme: dark) { :root { --ground: #12161a; --card: #1b2127; --ink: #e8ecf0; --soft: #a3adb7;
  --line: #343d46; --link: #8abaf0; --synthetic: #ff9a8d; --authentic: #7fd6a3; --inconclusive: #f0be6a;
  --none: #cfaef2; --fill: #2a323a } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif;
  overflow-wrap: break-word }
main, header, footer { max-width: 70rem; margin: 0 auto; padding: 0 1rem }
header { padding-top: 1.5rem } footer { padding-bottom: 2.5rem; color: var(--soft); font-size: .9rem }
h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .2rem } h2 { font-size: 1.1rem; margin: 0 0 .6rem }
h3 { font-size: 1rem; margin: 0 } p { margin: .4rem 0 } small, .soft { color: var(--soft) }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.1rem 1.2rem;
  margin: 1rem 0 }
dl { display: grid; grid-template-columns: fit-content(12rem) minmax(0, 1fr); gap: .25rem 1rem; margin: .5rem 0 }
dt { color: var(--soft) } dd { margin: 0; white-space: pre-line; overflow-wrap: anywhere }
ul { margin: .4rem 0; padding-left: 1.2rem } li { margin: .2rem 0 }
code { font: .88em/1.5 ui-monospace, monospace } img { display: block; max-width: 100% }
summary { cursor: pointer; color: var(--link) }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 2px }
table { border-collapse: collapse; width: 100% }
th { text-align: left; font-weight: 600; color: var(--soft) }
td, th { padding: .45rem .8rem .45rem 0; border-top: 1px solid var(--line); vertical-align: top }
.n { text-align: right; font-variant-numeric: tabular-nums }
.synthetic { color: var(--synthetic) } .authentic { color: var(--authentic) }
.inconclusive { color: var(--inconclusive) } .none { color: var(--none) }
.answer { font-weight: 700 } .answer svg { width: .95em; height: .95em; margin-right: .4em; vertical-align: -.08em }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: .5rem }
  .cards thead { display: none } .cards tr, .cards td, .cards th { display: block } .cards td, .cards th { border: 0;
  padding: 0 } .cards tr { border-top: 1px solid var(--line); padding: .5rem 0 }
  .cards td::before { content: attr(data-name) ": "; color: var(--soft) } }
@media print { body { background: none } section { break-inside: avoid } .screen { display: none } }
"""

MARKS: dict[Label | None, str] = {
    "synthetic": '<path d="M8 1 15.5 15H.5Z"/>',
    "authentic": '<circle cx="8" cy="8" r="7"/>',
    "inconclusive": '<path d="M8 .5 15.5 8 8 15.5 .5 8Z"/>',
    None: '<path d="M2 4 4 2l4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4Z"/>',
}
"""A shape an answer, beside its colour: triangle, circle, diamond, cross."""


def text(value: object) -> str:
    """Any text as HTML that shows it and does nothing: markup escaped, control characters written out."""
    return html.escape(visible(str(value)))


def lines(value: str) -> str:
    """The same, its line breaks kept (shown by `white-space: pre-line`)."""
    return "\n".join(text(part) for part in value.replace("\r\n", "\n").split("\n"))


def answer(record: Record, words: str) -> str:
    """The answer with its mark and colour."""
    kind = record.label or "none"
    mark = f'<svg viewBox="0 0 16 16" fill="currentColor" aria-hidden="true">{MARKS[record.label]}</svg>'
    return f'<span class="answer {kind}">{mark}{text(words)}</span>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, both of others' making."""
    return "<dl>" + "".join(f"<dt>{text(n)}</dt><dd>{lines(v)}</dd>" for n, v in rows) + "</dl>"


def settings_rows(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    """What the person set, for `facts`; None is the default."""
    return [
        (
            name.replace("_", " "),
            "default" if value is None else ", ".join(value) if isinstance(value, list) else str(value),
        )
        for name, value in settings.items()
    ]


def section(heading: str, parts: Sequence[str], name: str) -> str:
    """A part of the page; `parts` are HTML, `name` its id."""
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{text(heading)}</h2>{"".join(parts)}</section>\n'
    )


def head(title: str, style: str, script: str) -> str:
    """All that stands before the body; `style` comes after the frame's own."""
    css = STYLE + style
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(css)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="generator" content="MAI">'
        f"<title>{text(title)}</title><style>{css}</style></head>\n<body>\n"
    )


def foot(script: str) -> str:
    """All that stands after the body's content."""
    return f"<script>{script}</script>\n</body></html>\n"


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
