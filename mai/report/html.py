"""A scan as one HTML page: counts, a row an image with a thumbnail, each layer's evidence folded under it.

Rows wait in a temporary file, so that memory stays flat and the counts can stand on top.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TextIO

from mai import __version__
from mai.report import layers, words
from mai.report.case import NOT_PROOF
from mai.report.page import answer, facts, foot, head, lines, section, settings_rows, text
from mai.report.thumbnail import data_url
from mai.types import Label, Record

MAX_THUMBNAILS = 5_000
"""Pictures on one page (about 4 kB each): beyond, a browser groans."""

STYLE = """
.counts { display: flex; flex-wrap: wrap; gap: .5rem; margin: .8rem 0 } .counts button { font: inherit; color: inherit;
  background: var(--fill); border: 2px solid transparent; border-radius: 2rem; padding: .3rem .9rem; cursor: pointer }
.counts button[aria-pressed=true] { border-color: var(--link) }
td.thumb img { width: 64px; height: 64px; object-fit: contain; background: var(--fill) }
td.thumb div { width: 64px; height: 64px; background: var(--fill) } td.file { overflow-wrap: anywhere }
.images { table-layout: fixed } .images col.thumb { width: 80px } .images col.answer-column { width: 13rem }
.images col.score-column { width: 5.5rem } .images col.reason-column { width: 15rem }
details p { margin: .3rem 0 } details { font-size: .9rem }
@media (max-width: 44rem) { .images, .images tbody { display: block } .images :is(colgroup, thead) { display: none }
  .images tr { display: grid; grid-template-columns: 76px minmax(0, 1fr);
  border-top: 1px solid var(--line); padding: .6rem 0 } td { border: 0; padding: 0 } td.thumb { grid-row: 1 / span 5 }
  td.n { text-align: left } td.n::before { content: attr(data-name) " "; color: var(--soft) } }
tr[hidden] { display: none }
"""

SCRIPT = """
const buttons = document.querySelectorAll("button[data-show]");
for (const button of buttons) button.addEventListener("click", () => {
  for (const other of buttons) other.setAttribute("aria-pressed", other === button);
  for (const row of document.querySelectorAll("tr[data-label]"))
    row.hidden = button.dataset.show !== "all" && row.dataset.label !== button.dataset.show;
});
"""

KINDS: tuple[tuple[Label | None, str], ...] = (*words.LABELS.items(), (None, "not judged"))


class Html:
    """A page of rows, written when it is finished.

    Args:
        stream: where the page goes.
        date: when the scan began.
        settings: what the person set, by the names of the options.
        weights: detector -> name and hash of its weights.
        not_checked: what was not looked at, see layers.not_asked.
        operating_point: what the thresholds mean, in a sentence; None without a network.
        has_posterior: a column for the probability at the given prior.

    Attributes:
        is_stopped: the scan was stopped before its end, which the page then says.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        date: datetime,
        settings: Mapping[str, object],
        weights: Mapping[str, str],
        not_checked: Sequence[str] = (),
        operating_point: str | None = None,
        has_posterior: bool = False,
    ) -> None:
        self._stream = stream
        self._made = [
            ("date", date.strftime("%Y-%m-%d %H:%M:%S %Z")),
            ("MAI", __version__),
            *((f"weights of {name}", said) for name, said in weights.items()),
            *settings_rows(settings),
        ]
        self._not_checked = tuple(not_checked)
        self._operating_point = operating_point
        self._has_posterior = has_posterior
        self.is_stopped = False
        self._counts: dict[Label | None, int] = {}
        self._n_shown = 0
        self._rows = tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115

    def write(self, record: Record) -> None:
        """Take one row."""
        self._counts[record.label] = self._counts.get(record.label, 0) + 1
        self._rows.write(self._row(record))

    def finish(self) -> None:
        """Write the page."""
        self._stream.write(self._top())
        self._rows.seek(0)
        shutil.copyfileobj(self._rows, self._stream)
        self._rows.close()
        self._stream.write(self._bottom())
        self._stream.flush()

    def _row(self, record: Record) -> str:
        kind = record.label or "none"
        posterior = words.weighed_posterior(record)
        extra = (
            f'<td class="n" data-name="probability">{_score(posterior)}</td>' if self._has_posterior else ""
        )
        return (
            f'<tr data-label="{kind}"><td class="thumb">{self._thumbnail(record)}</td>'
            f'<td class="file"><strong>{text(record.path)}</strong>{_folded(record)}</td>'
            f"<td>{answer(record, words.verdict_words(record))}</td>"
            f'<td class="n" data-name="score">{_score(record.score)}</td>{extra}'
            f"<td>{text(words.reason_words(record) or record.message or '')}</td></tr>\n"
        )

    def _columns(self) -> list[str]:
        scores = ["score-column"] * (2 if self._has_posterior else 1)
        return ["thumb", "", "answer-column", *scores, "reason-column"]

    def _thumbnail(self, record: Record) -> str:
        if record.thumbnail is None or self._n_shown >= MAX_THUMBNAILS:
            return "<div></div>"
        self._n_shown += 1
        return f'<img src="{data_url(record.thumbnail)}" alt="" loading="lazy">'

    def _top(self) -> str:
        n = sum(self._counts.values())
        counted = f"{n:,} {'image' if n == 1 else 'images'}"
        buttons = [f'<button type="button" data-show="all" aria-pressed="true">all {n:,}</button>']
        buttons += [
            f'<button type="button" data-show="{label or "none"}" aria-pressed="false">'
            f'<span class="{label or "none"}">{said}</span> {self._counts[label]:,}</button>'
            for label, said in KINDS
            if self._counts.get(label)
        ]
        point = f"<p>{text(self._operating_point)}</p>" if self._operating_point else ""
        cut = f"<p>Only the first {MAX_THUMBNAILS:,} pictures are shown.</p>" if n > MAX_THUMBNAILS else ""
        if self.is_stopped:
            cut += "<p><strong>The scan was stopped before its end: other images were not looked at.</strong></p>"
        columns = "".join(f'<col class="{name}">' for name in self._columns())
        posterior = '<th scope="col" class="n">Prob.</th>' if self._has_posterior else ""
        return (
            f"{head(f'MAI: {counted}', STYLE, SCRIPT)}<header>"
            '<p class="soft">Scan by MAI, the Multilayer Authenticity Identifier</p></header>\n<main>\n'
            f'<section aria-labelledby="sum"><h1 id="sum">{counted}</h1><div class="counts" role="group" '
            f'aria-label="Show">{"".join(buttons)}</div>{point}<p class="soft">{text(NOT_PROOF)}</p>{cut}</section>\n'
            '<section aria-labelledby="images"><h2 id="images">Images</h2>'
            f'<table class="images">{columns}<thead><tr><td></td>'
            '<th scope="col">File</th><th scope="col">Verdict</th><th scope="col" class="n">Score</th>'
            f'{posterior}<th scope="col">Reason</th></tr></thead><tbody>\n'
        )

    def _bottom(self) -> str:
        unchecked = "".join(f"<li>{text(entry)}</li>" for entry in self._not_checked)
        return (
            "</tbody></table></section>\n"
            + section("What was not checked", [f"<ul>{unchecked}</ul>"], "unchecked")
            + section("How this page was made", [facts(self._made)], "made")
            + f"</main>\n{foot(SCRIPT)}"
        )


def _score(score: float | None) -> str:
    return text(words.score_words(score))


def _folded(record: Record) -> str:
    """Each layer's evidence and the file's facts, closed until somebody asks."""
    image = record.image
    told = "".join(
        f"<p><strong>{text(layers.title(e.detector))}:</strong> {text(layers.finding(e))}. {lines(e.note)}</p>"
        for e in record.evidence
    )
    if image:
        size = "" if image.n_bytes is None else f", {image.n_bytes:,} bytes"
        told += (
            f'<p class="soft">{text(image.format)}, {image.width:,} x {image.height:,} pixels{size}<br>'
            f"SHA-256 <code>{image.sha256}</code></p>"
        )
    explained = f"<p>{text(words.explanation(record))}</p>"
    return f"<details><summary>Evidence</summary>{explained}{told}</details>"
