"""A case as one HTML page for people: the answer, the picture with its heat map, each layer, what was not checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mai.report import layers, words
from mai.report.case import NOT_PROOF, Case, error_rates, versions
from mai.report.escape import visible
from mai.report.heatmap import drawn, layer
from mai.report.page import answer, facts, foot, head, lines, section, settings_rows, text
from mai.report.thumbnail import data_url, jpeg

if TYPE_CHECKING:
    from mai.types import Evidence, HeatMap, Record, Verdict

PICTURE_PX = 1200
"""Longest side of the picture in the page."""

PICTURE_QUALITY = 85

STYLE = """
.path { overflow-wrap: anywhere }
.verdict h1 { font-size: 1.9rem; margin: .1rem 0 .4rem } .verdict p { max-width: 46rem }
.bar { width: 100%; max-width: 38rem; height: auto; display: block; margin: .8rem 0 .4rem; overflow: visible }
.bar text { fill: var(--soft); font: 12px system-ui, sans-serif } .bar .now { fill: var(--ink); font-weight: 700 }
.bar .zone-synthetic { fill: var(--synthetic) } .bar .zone-authentic { fill: var(--authentic) }
.bar .zone-none { fill: var(--fill) } .bar .mark { fill: var(--ink) }
.columns { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0 1rem; align-items: start }
@media (min-width: 58rem) { .columns { grid-template-columns: minmax(0, 5fr) minmax(0, 6fr) } }
figure { margin: 0 } .stack { position: relative; background: var(--fill); width: fit-content; margin: 0 auto }
.stack img { width: auto; height: auto; max-height: 34rem }
.stack img + img { position: absolute; inset: 0; width: 100%; height: 100%; max-height: none;
  image-rendering: pixelated; opacity: .6 }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .6rem }
.control { display: flex; gap: .8rem; align-items: center; margin-top: .7rem } .control input { flex: 1 }
.legend { width: 100%; height: .8rem; display: block; margin-top: .6rem } .ends { display: flex;
  justify-content: space-between; font-size: .85rem; color: var(--soft) }
article { border-top: 1px solid var(--line); padding: .8rem 0 } article:first-of-type { border: 0; padding-top: 0 }
.found { font-weight: 600 } .quiet .found { font-weight: 400; color: var(--soft) }
.head { display: flex; flex-wrap: wrap; gap: .1rem 1rem; justify-content: space-between }
"""

SCRIPT = """
for (const slider of document.querySelectorAll("input[data-map]")) {
  const map = document.getElementById(slider.dataset.map);
  const show = () => { map.style.opacity = slider.value / 100; };
  slider.addEventListener("input", show);
  show();
}
"""


def explanation_page(case: Case) -> str:
    """The whole page."""
    record = case.record
    unchecked = layers.unchecked(record.evidence, case.settings["detectors"])
    parts = [
        head(f"{words.verdict_words(record)}: {record.path}", STYLE, SCRIPT),
        f'<header><p class="soft">Report of MAI, the Multilayer Authenticity Identifier</p>'
        f"<p class='path'><strong>{text(record.path)}</strong></p></header>\n<main>\n",
        _verdict(case),
        '<div class="columns"><div>',
        _picture(case),
        section("The file", [facts(_file(record))], "file"),
        "</div><div>",
        _layers(record),
        section("What was not checked", [_list(unchecked)], "unchecked"),
        "</div></div>",
        _operating_point(case),
        section("How this report was made", [facts(_made(case))], "made"),
        "</main>\n<footer><p>",
        text(NOT_PROOF),
        "</p></footer>\n",
        foot(SCRIPT),
    ]
    return "".join(parts)


def _verdict(case: Case) -> str:
    record = case.record
    said = words.verdict_words(record)
    parts = [
        f'<h1 id="verdict">{answer(record, said[0].upper() + said[1:])}</h1>',
        f"<p>{text(words.explanation(record))}</p>",
    ]
    verdict = record.verdict
    if verdict is not None:
        if verdict.edited and record.reason != "declared_edit":
            parts.append("<p>The file also declares an edit with AI.</p>")
        if verdict.score is not None:
            parts.append(_bar(verdict))
            if verdict.reason not in words.BY_SCORE:
                parts.append("<p>The score is that of the networks alone; it did not decide.</p>")
        posterior = words.posterior_words(record)
        if posterior:
            parts.append(f"<p>{text(posterior)}</p>")
        parts.append(f'<p class="soft">{text(NOT_PROOF)}</p>')
    return f'<section class="verdict" aria-labelledby="verdict">{"".join(parts)}</section>\n'


def _bar(verdict: Verdict) -> str:
    """Where the score lies between 0 and 1, and where the thresholds do."""
    score, point = verdict.score or 0.0, verdict.thresholds
    shown = words.score_words(verdict.score)
    told = f"Score {shown} on a scale from 0 to 1"
    zones = ""
    if point is not None:
        told += f"; no sign of AI up to {point.authentic:.3g}, likely AI-generated from {point.synthetic:.3g}"
        zones = (
            f'<rect class="zone-authentic" x="0" y="22" width="{400 * point.authentic:.1f}" height="10"/>'
            f'<rect class="zone-synthetic" x="{400 * point.synthetic:.1f}" y="22" '
            f'width="{400 * (1 - point.synthetic):.1f}" height="10"/>'
        )
    x = 400 * score
    anchor = "start" if x < 40 else "end" if x > 360 else "middle"
    return (
        f'<svg class="bar" viewBox="0 0 400 50" role="img" aria-label="{text(told)}">'
        f'<rect class="zone-none" x="0" y="22" width="400" height="10"/>{zones}'
        f'<path class="mark" d="M{x:.1f} 24 l-6 -9 h12 Z"/><path class="mark" d="M{x - 1:.1f} 22 h2 v12 h-2 Z"/>'
        f'<text class="now" x="{x:.1f}" y="11" text-anchor="{anchor}">score {text(shown)}</text>'
        '<text x="0" y="47">0, leans authentic</text>'
        '<text x="400" y="47" text-anchor="end">leans AI-generated, 1</text></svg>'
    )


def _picture(case: Case) -> str:
    if case.picture is None:
        return section("The picture", ["<p>It cannot be shown: it was not decoded.</p>"], "picture")
    height, width = case.picture.shape[:2]
    source = data_url(jpeg(case.picture, PICTURE_PX, PICTURE_QUALITY))
    shown = f'<img src="{source}" width="{width}" height="{height}" alt="The picture that was judged">'
    maps = [
        (name, found, data_url(layer(found, case.weights[name].calibration, height, width), "png"))
        for name, found in case.heat_maps.items()
        if name in case.weights
    ]
    if not maps:
        asked = "None of the networks that looked has a heat map." if case.weights else "No network looked."
        figure = f'<figure><div class="stack">{shown}</div><figcaption>{asked}</figcaption></figure>'
        return section("The picture", [figure], "picture")
    figures = [_overlaid(number, name, found, shown, url) for number, (name, found, url) in enumerate(maps)]
    return section("The picture, and what the network finds where", figures, "picture")


def _overlaid(number: int, name: str, maps: tuple[HeatMap, ...], shown: str, url: str) -> str:
    """The picture under one network's heat map, with its slider and what the colours mean."""
    over = f'<img id="map-{number}" src="{url}" alt="">'
    what = "as a whole" if drawn(maps)[0].kind == "whole" else "in close-ups"
    rest = len(maps) - len(drawn(maps))
    more = f" Its {rest} close-ups are not drawn." if rest else ""
    more += " Where no window lies, nothing is drawn." if len(drawn(maps)) > 1 else ""
    caption = (
        f"{layers.title(name)}: each square is a place, coloured by what that place alone would say. The mean of a "
        f"window's squares is the network's answer for it, so the map is exact. It shows the picture {what}.{more} "
        "A place that stands out is no proof: networks also react to skies, skin and text."
    )
    return (
        f'<figure><div class="stack">{shown}{over}</div>'
        f'<div class="control screen"><label for="slider-{number}">Heat map</label>'
        f'<input id="slider-{number}" type="range" min="0" max="100" value="60" data-map="map-{number}" '
        'aria-description="Opacity of the heat map over the picture, in percent"></div>'
        '<svg class="legend" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><defs>'
        f'<linearGradient id="scale-{number}"><stop offset="0" stop-color="#286ebe"/>'
        '<stop offset=".5" stop-color="#888" stop-opacity=".12"/><stop offset="1" stop-color="#e66101"/>'
        f'</linearGradient></defs><rect width="100" height="4" fill="url(#scale-{number})"/></svg>'
        '<div class="ends"><span>leans authentic</span><span>even</span><span>leans AI-generated</span></div>'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def _layers(record: Record) -> str:
    if not record.evidence:
        return section("The evidence", ["<p>No layer could look at this file.</p>"], "evidence")
    return section("The evidence, layer by layer", [_layer(e) for e in record.evidence], "evidence")


def _layer(evidence: Evidence) -> str:
    rows = layers.details(evidence)
    if evidence.weights:
        rows.append(("weights", evidence.weights))
    if evidence.logit is not None:
        rows.append(("raw output (logit)", f"{evidence.logit:.4g}"))
    more = (
        f"<details><summary>Details ({len(rows)})</summary>{facts(rows)}</details>"
        if rows and evidence.status != "absent"
        else ""
    )
    looks = layers.looks_at(evidence.detector)
    at = f'<p class="soft"><small>Looks at {text(looks)}.</small></p>' if looks else ""
    return (
        f'<article class="{"telling" if layers.is_telling(evidence) else "quiet"}"><div class="head">'
        f'<h3>{text(layers.title(evidence.detector))}</h3><span class="found">{text(layers.finding(evidence))}</span>'
        f"</div>{at}<p>{lines(evidence.note)}</p>{more}</article>"
    )


def _operating_point(case: Case) -> str:
    verdict = case.record.verdict
    if verdict is None or verdict.thresholds is None or case.measured is None:
        return ""
    names = {
        "false_positive": "Authentic pictures flagged",
        "false_negative": "AI-generated pictures called 'no sign of AI'",
        "missed": "AI-generated pictures not flagged",
    }
    signs = {
        "false_positive": "score of at least",
        "false_negative": "score of at most",
        "missed": "score under",
    }
    rows = "".join(
        f'<tr><th scope="row">{names[rate.kind]}</th>'
        f'<td data-name="threshold">{signs[rate.kind]} {rate.threshold:.4g}</td>'
        f'<td data-name="chosen for">{"" if rate.rate is None else words.share(rate.rate)}</td>'
        f'<td data-name="measured">{rate.n_errors:,} of {rate.n:,} '
        f"({rate.low:.2%} to {rate.high:.2%})</td></tr>"
        for rate in error_rates(case)
    )
    table = (
        '<table class="cards"><thead><tr><td></td><th scope="col">Threshold</th><th scope="col">Chosen for</th>'
        f'<th scope="col">Measured (95 % interval)</th></tr></thead><tbody>{rows}</tbody></table>'
        if rows
        else ""
    )
    said = f"<p>{text(words.operating_point(verdict.thresholds, case.measured.table))}</p>"
    return section("How often it errs", [said, table], "errors")


def _file(record: Record) -> list[tuple[str, str]]:
    image = record.image
    if image is None:
        return [("path", visible(record.path)), ("status", words.STATUSES[record.status])]
    size = "in memory" if image.n_bytes is None else f"{image.n_bytes:,} bytes"
    return [
        ("path", visible(record.path)),  # a line break in a name must not look like one of the page
        ("format", visible(image.format)),
        ("size", f"{image.width:,} x {image.height:,} pixels, {size}"),
        ("SHA-256", image.sha256),
    ]


def _made(case: Case) -> list[tuple[str, str]]:
    made = versions()
    rows = [
        ("date", case.date.strftime("%Y-%m-%d %H:%M:%S %Z")),
        ("MAI", made["version"]),
        ("Python", made["python"]),
        ("packages", ", ".join(f"{name} {version}" for name, version in made["packages"].items())),
    ]
    for name, own in case.weights.items():
        rows.append((f"weights of {name}", f"{own.name}\nSHA-256 {own.config['sha256']}"))
    rows += settings_rows(case.settings)
    seconds = ", ".join(f"{name} {value:.3f}" for name, value in case.record.seconds.items())
    return [*rows, ("seconds", seconds or "-")]


def _list(items: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"
