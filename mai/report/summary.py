"""A finished scan -> what it found: counts, score histogram, the worst offenders, files by label."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappush, heapreplace
from pathlib import Path
from typing import Any

from mai.errors import UsageError, require
from mai.report import page
from mai.report.parquet import NO_VALUE
from mai.report.words import LABELS, REASONS, STATUSES

N_BINS = 20
N_SHOWN = 50

STYLE = """
.chart { display: block; width: 100%; height: 14rem; fill: var(--link); border-bottom: 1px solid var(--line) }
.ends { display: flex; justify-content: space-between }
"""

Row = dict[str, Any]


def rows_of(path: Path) -> Iterator[Row]:
    """Rows of a scan's output: JSON Lines, JSON, CSV, Parquet (a file, or a folder of parts),
    SQLite, DuckDB; each with path, status, label, score, reason.

    Raises:
        UsageError: the file is not there, of no known kind, or no scan.
    """
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        **{".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv},
        **{".parquet": _parquet, ".sqlite": _sqlite, ".db": _sqlite, ".duckdb": _duckdb},
    }
    if path.is_dir():
        readers[path.suffix.lower()] = _parts
    elif not path.is_file():
        raise UsageError(f"There is no file '{path}'. Give what `mai scan --output FILE` wrote.")
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"'{path.name}' is no scan that can be read: {', '.join(readers)}.")
    try:
        for row in reader(path):
            if not isinstance(row, dict) or not {"path", "status", "label", "score"} <= row.keys():
                raise ValueError("a row lacks path, status, label or score")
            if row["score"] is not None and not 0 <= float(row["score"]) <= 1:
                raise ValueError(f"a score of {row['score']}")
            yield row
    except (ValueError, KeyError, TypeError, OSError, sqlite3.Error) as error:
        lack = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UsageError(
            f"'{path}' is no scan of MAI: {lack}. Give what `mai scan --output FILE` wrote."
        ) from error


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def _json(path: Path) -> Iterator[Row]:
    yield from json.loads(path.read_text("utf-8"))


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            score = row["score"]
            name = row["path"].removeprefix("'") if row["path"][1:2] in tuple("=+-@\t\r\n") else row["path"]
            yield {
                **row,
                "path": name,
                "label": row["label"] or None,
                "score": float(score) if score else None,
            }


def _parquet(path: Path) -> Iterator[Row]:
    parquet = require("pyarrow.parquet", "data", "Reading Parquet")
    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _parts(path: Path) -> Iterator[Row]:
    """A folder of Parquet files: the column that divides them stands in the names of its folders."""
    files = sorted(path.rglob("*.parquet"))
    if not files:
        raise ValueError("there is no Parquet file in that folder")
    for file in files:
        said = {}
        for part in file.relative_to(path).parts[:-1]:
            name, _, value = part.partition("=")
            said[name] = None if value == NO_VALUE else value
        for row in _parquet(file):
            yield {**row, **said}


def _duckdb(path: Path) -> Iterator[Row]:
    duckdb = require("duckdb", "scale", "Reading DuckDB")
    try:
        with duckdb.connect(str(path), read_only=True) as db:
            found = db.execute("SELECT * FROM records")
            names = [column[0] for column in found.description]
            while rows := found.fetchmany(1000):
                yield from (dict(zip(names, row, strict=True)) for row in rows)
    except duckdb.Error as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _sqlite(path: Path) -> Iterator[Row]:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        db.row_factory = sqlite3.Row
        for row in db.execute("SELECT * FROM records ORDER BY rowid"):
            yield dict(row)
    finally:
        db.close()


@dataclass(slots=True)
class Summary:
    """What a scan found.

    Attributes:
        n: rows.
        labels: label -> rows; `none` for files that were not judged.
        reasons: reason -> rows.
        statuses: status -> rows that are not ok.
        bins: rows by score, N_BINS from 0 to 1.
        highest: rows with the highest scores, the highest first.
        examples: label -> the first rows of it.
    """

    n: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    bins: list[int] = field(default_factory=lambda: [0] * N_BINS)
    highest: list[Row] = field(default_factory=list)
    examples: dict[str, list[Row]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "n": self.n, "labels": dict(self.labels), "reasons": dict(self.reasons), "statuses": dict(self.statuses),
            "score_histogram": self.bins, "highest": [_brief(row) for row in self.highest],
        }  # fmt: skip


def _brief(row: Row) -> Row:
    return {name: row.get(name) for name in ("path", "label", "score", "reason", "status", "message")}


def summarise(rows: Iterator[Row]) -> Summary:
    """Count; memory does not grow with the rows."""
    made = Summary()
    heap: list[tuple[float, int, Row]] = []
    for number, row in enumerate(rows):
        made.n += 1
        label = row["label"] or "none"
        made.labels[label] += 1
        if row["status"] != "ok":
            made.statuses[row["status"]] += 1
        if row.get("reason"):
            made.reasons[row["reason"]] += 1
        own = made.examples.setdefault(label, [])
        if len(own) < N_SHOWN:
            own.append(row)
        if row["score"] is not None:
            made.bins[min(N_BINS - 1, int(float(row["score"]) * N_BINS))] += 1
            entry = (float(row["score"]), -number, row)
            if len(heap) < N_SHOWN:
                heappush(heap, entry)
            elif entry[:2] > heap[0][:2]:
                heapreplace(heap, entry)
    made.highest = [row for _, _, row in sorted(heap, key=lambda e: (-e[0], -e[1]))]
    return made


def html(made: Summary, source: str) -> str:
    """The summary as a self-contained page."""
    words: dict[str, str] = {str(label): told for label, told in LABELS.items()} | {"none": "not judged"}
    counts = [
        (words.get(name, name), f"{n:,} ({n / max(made.n, 1):.1%})") for name, n in made.labels.most_common()
    ]
    most = max(made.bins) or 1
    width, gap = 100 / N_BINS, 0.6
    bars = "".join(
        f'<rect x="{i * width + gap / 2:.2f}" y="{40 - 38 * n / most:.2f}" width="{width - gap:.2f}" '
        f'height="{38 * n / most:.2f}"><title>{i / N_BINS:.2f} to {(i + 1) / N_BINS:.2f}: {n:,}</title></rect>'
        for i, n in enumerate(made.bins)
    )
    chart = (
        '<svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" class="chart" '
        f'aria-label="Files by score, from 0 on the left to 1 on the right">{bars}</svg>'
        '<p class="soft ends"><span>score 0, leans authentic</span><span>1, leans AI-generated</span></p>'
    )
    parts = [
        page.head("MAI scan", STYLE, ""),
        f"<header><h1>{made.n:,} files scanned</h1><p class=soft>{page.text(source)}</p></header><main>",
        page.section("What was found", [page.facts(counts)], "found"),
        page.section("Scores", [chart], "scores"),
        page.section("Highest scores", [_table(made.highest)], "highest"),
    ]
    if made.reasons:
        reasons = [(_told(name), f"{n:,}") for name, n in made.reasons.most_common()]
        parts.append(page.section("Reasons", [page.facts(reasons)], "reasons"))
    if made.statuses:
        statuses = [(_told(name), f"{n:,}") for name, n in made.statuses.most_common()]
        parts.append(
            page.section(
                "Not judged", [page.facts(statuses), _table(made.examples.get("none", []))], "failed"
            )
        )
    parts += [
        page.section(f"First files: {words[name]}", [_table(made.examples[name][:20])], f"x-{name}")
        for name in ("synthetic", "authentic", "inconclusive")
        if name in made.examples
    ]
    parts.append("</main><footer><p>A verdict is a signal, not proof.</p></footer>" + page.foot(""))
    return "".join(parts)


def _told(name: str) -> str:
    """A reason or status in the words of `mai scan`; one of a later version as it is written."""
    known: dict[str, str] = {str(key): said for key, said in (*REASONS.items(), *STATUSES.items())}
    return known.get(name, name.replace("_", " "))


def _table(rows: list[Row]) -> str:
    lines = "".join(
        f"<tr><td data-name=file>{page.text(row['path'])}</td><td data-name=score class=n>"
        f"{'' if row['score'] is None else format(float(row['score']), '.3f')}</td>"
        f"<td data-name=why>{page.text(row.get('message') or _told(row.get('reason') or ''))}</td></tr>"
        for row in rows
    )
    return f"<table class=cards><thead><tr><th>file<th class=n>score<th>why</tr></thead><tbody>{lines}</tbody></table>"
