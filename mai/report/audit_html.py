"""The audit of a labelled set as one HTML file for people, with small pictures of what it found."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mai.errors import MaiError
from mai.report.escape import visible

if TYPE_CHECKING:
    from mai.data.audit import Audit, ViewLeak
    from mai.data.labelled import Row
    from mai.measure.metrics import Interval

THUMB_PX = 112
N_GROUPS = 24
N_BROKEN = 100

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #c0392b; --good: #1e8449 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line);
text-align: left } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.bad { color: var(--bad); font-weight: 600 } .good { color: var(--good); font-weight: 600 }
.row { display: flex; flex-wrap: wrap; gap: .5rem; margin: .5rem 0 1.2rem }
figure { margin: 0; width: 116px; font-size: 11px; line-height: 1.25; overflow-wrap: anywhere }
figure img, .none { width: 112px; height: 112px; object-fit: contain; background: #8882; display: block }
.none { display: grid; place-items: center } .bar { position: relative; width: 16rem; height: .9rem; background: #8882 }
.bar i { position: absolute; top: 0; bottom: 0; background: #2874a688 }
.bar b { position: absolute; top: -2px; bottom: -2px; width: 2px; background: #2874a6 }
.bar u { position: absolute; top: 0; bottom: 0; width: 1px; background: var(--bad) }
.columns { display: flex; flex-wrap: wrap; gap: 1rem 3rem } small { opacity: .75 }
"""


def audit_html(found: Audit) -> str:
    """One self-contained page: no script, nothing is fetched, all text of the set is escaped."""
    counts = found.labelled.counts()
    verdict = '<p class="good">Clean: nothing was found that spoils training or figures.</p>'
    verdict += "".join(f"<p>{_text(view.doubt)}</p>" for view in found.views if view.doubt)
    if not found.is_clean:
        said = "".join(f"<li>{_text(finding)}</li>" for finding in found.findings)
        verdict = f'<p class="bad">Not clean</p><ul>{said}</ul>'
    parts = [
        f"<h1>Audit of {_text(found.labelled.name)}</h1>",
        f"<p>{counts['images']:,} pictures in {counts['files']:,} files: {counts['synthetic']:,} synthetic, "
        f"{counts['authentic']:,} authentic.<br><small>Fingerprint {found.labelled.fingerprint}</small></p>",
        verdict,
        "<h2>What the files give away without the picture</h2>",
        "<p>AUROC of a classifier that sees only format, width, height, shape, chroma subsampling and JPEG quality, "
        "cross-validated by source, with its 95 % interval over sources. Left end of a bar: .5, nothing; right end: "
        "1; the red line is the limit for the lower end. Bytes follow a picture's detail: shown, not judged.</p>",
        *(_leak(found, view) for view in found.views),
        "<h2>Broken files</h2>",
        _broken(found),
        "<h2>Duplicates</h2>",
        _repeats(found),
        "<h2>Sources in several splits</h2>",
        _shared(found),
        "<h2>Counts</h2>",
        '<div class="columns">',
        *(_counts(found, facet) for facet in ("split", "view", "content", "generator", "source")),
        "</div>",
    ]
    title = f"<title>Audit of {_text(found.labelled.name)}</title>"
    head = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{title}<style>{_STYLE}</style></head>'
    )
    return f"{head}<body>{''.join(parts)}</body></html>\n"


def _text(value: object) -> str:
    return html.escape(visible(str(value)))


def _leak(found: Audit, view: ViewLeak) -> str:
    from mai.data.audit import LEAK

    lines: list[tuple[str, Interval | None]] = [
        ("as stored", view.stored),
        ("&emsp;width and height alone", view.shape),
        ("&emsp;with bytes (not judged)", view.stored_bytes),
    ]
    if found.is_chained:
        lines += [
            (f"after the training chain (n = {view.n_chained:,})", view.chained),
            ("&emsp;with bytes (not judged)", view.chained_bytes),
        ]
    head = "Files" if view.view is None else f"View {_text(view.view)}"
    mark = ' <span class="bad">leak</span>' if view.is_leaking else ""
    rows = "".join(
        f"<tr><td>{name}</td><td>{_bar(value, LEAK)}</td><td>{_figure(value)}</td></tr>"
        for name, value in lines
    )
    facts = "".join(
        f"<p>{_text(fact.words[0].upper() + fact.words[1:])}. <small>Alone: AUROC {_text(fact.auroc)}, "
        f"n = {fact.n_synthetic:,} + {fact.n_authentic:,}.</small></p>{_pictures(found, fact.examples)}"
        for fact in view.facts
    )
    return (
        f"<h3>{head}{mark}</h3><p>{view.n_synthetic:,} synthetic, {view.n_authentic:,} authentic pictures of "
        f"{view.n_sources:,} sources.</p><table>{rows}</table>{facts}"
    )


def _bar(interval: Interval | None, limit: float) -> str:
    if interval is None:
        return ""

    def at(value: float) -> float:
        return min(max((value - 0.5) * 200, 0.0), 100.0)

    low, high = at(interval.low), at(interval.high)
    return (
        f'<div class="bar"><i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        f'<b style="left:{at(interval.value):.1f}%"></b><u style="left:{at(limit):.1f}%"></u></div>'
    )


def _figure(interval: Interval | None) -> str:
    return str(interval) if interval else "too few pictures to tell"


def _broken(found: Audit) -> str:
    if not found.broken:
        return "<p>None.</p>"
    rows = "".join(
        f"<tr><td>{_text(found.labelled.relative(e.row.file))}</td><td>{_text(e.status.replace('_', ' '))}</td>"
        f"<td>{_text(e.problem)}</td></tr>"
        for e in found.broken[:N_BROKEN]
    )
    more = f"<p>And {len(found.broken) - N_BROKEN:,} more.</p>" if len(found.broken) > N_BROKEN else ""
    return f"<table>{rows}</table>{more}"


def _repeats(found: Audit) -> str:
    if not found.repeats:
        return "<p>None.</p>"
    parts = []
    for repeat in found.repeats[:N_GROUPS]:
        where = "the same file" if repeat.kind == "exact" else "nearly the same picture"
        marks = "".join(
            f' <span class="bad">{mark}</span>'
            for mark, is_so in (
                ("in two splits", len(repeat.splits) > 1),
                ("with both labels", repeat.is_across_labels),
            )
            if is_so
        )
        parts.append(f"<p>{len(repeat.rows):,} times {where}{marks}</p>{_pictures(found, repeat.rows[:8])}")
    if len(found.repeats) > N_GROUPS:
        parts.append(f"<p>And {len(found.repeats) - N_GROUPS:,} more groups.</p>")
    return "".join(parts)


def _shared(found: Audit) -> str:
    if not found.shared_sources:
        return "<p>None.</p>"
    rows = "".join(
        f"<tr><td>{_text(source)}</td>"
        f"<td>{_text(', '.join(f'{n:,} in {split}' for split, n in splits.items()))}</td></tr>"
        for source, splits in found.shared_sources.items()
    )
    return f"<table>{rows}</table>"


def _counts(found: Audit, facet: str) -> str:
    values = found.labelled.counts_by(facet)
    if set(values) == {"-"}:
        return ""
    rows = "".join(
        f'<tr><td>{_text(value)}</td><td class="n">{n["synthetic"]:,}</td><td class="n">{n["authentic"]:,}</td></tr>'
        for value, n in list(values.items())[:40]
    )
    more = f"<p>And {len(values) - 40:,} more.</p>" if len(values) > 40 else ""
    head = f'<tr><th>{facet}</th><th class="n">synthetic</th><th class="n">authentic</th></tr>'
    return f"<div><table>{head}{rows}</table>{more}</div>"


def _pictures(found: Audit, rows: Sequence[Row] | Iterable[Row]) -> str:
    return f'<div class="row">{"".join(_figure_of(found, row) for row in rows)}</div>'


def _figure_of(found: Audit, row: Row) -> str:
    data = thumbnail(row)
    shown = (
        f'<img alt="" src="data:image/jpeg;base64,{data}">'
        if data
        else '<div class="none">not readable</div>'
    )
    facts = ", ".join(part for part in (row.class_name, row.generator, row.split) if part)
    return f"<figure>{shown}<b>{_text(facts)}</b><br>{_text(found.labelled.relative(row.file))}</figure>"


def thumbnail(row: Row) -> str | None:
    """A small JPEG of a row's picture in base64, its shape kept; None if it cannot be decoded."""
    from PIL import Image

    from mai.images.decode import decode, read
    from mai.images.find import Found

    try:
        data = row.data
        pixels = decode(
            read(Found(row.file, None if data is not None else Path(row.file), data, named=True))
        ).pixels
    except MaiError:
        return None
    if pixels is None:
        return None
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMB_PX, THUMB_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=70)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
