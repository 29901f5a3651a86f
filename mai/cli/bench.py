"""`mai bench`: Measure detectors on labelled pictures so that file formats cannot fool anybody, and compare reports."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from mai.cli._group import Group
from mai.cli._leave_out import command as leave_out_command


@click.group("bench", cls=Group)
def command() -> None:
    """Measure detectors on labelled pictures: native and aligned, perturbed, with floors and intervals."""


command.add_command(leave_out_command)


@command.command("run")
@click.option("--data", required=True, help="Folder, CSV, Parquet file or hub:ORG/NAME with labels.")
@click.option(
    "--bench",
    "benchmark",
    default="",
    help="A benchmark's name or TOML file (see `mai bench list`).  [default: validation if the "
    "set has that split, else generic]",
)
@click.option(
    "--detectors",
    default="pixel",
    show_default=True,
    help="Networks by name or NAME=WEIGHTS_FOLDER, python:MODULE:FUNCTION, onnx:FILE, "
    "transformers:ID; joined by commas.",
)
@click.option(
    "--external",
    multiple=True,
    metavar="NAME=COMMAND",
    help="Another program: paths on stdin, path<TAB>score on stdout.",
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="NAME=VALUE",
    help="A detector's threshold in place of its own (others: 0.5).",
)
@click.option(
    "--protocols",
    help="Of native, aligned, web; joined by commas.  [default: native,aligned and web if there]",
)
@click.option(
    "--sweep", default="", help="Perturbations or the sweeps quick, stability, robustness; joined by commas."
)
@click.option(
    "--sweep-on",
    type=click.Choice(["native", "aligned", "web"]),
    help="Protocol of the perturbed pictures.  [default: web for stability if there, else aligned]",
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Folder for report.json, report.html, report.md."
)
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one a processor]")
@click.option(
    "--draws",
    type=click.IntRange(20),
    default=500,
    show_default=True,
    help="Bootstrap draws of each interval.",
)
@click.option(
    "--limit", type=click.IntRange(2), help="Only so many pictures of each class, spread over the set."
)
@click.option("--no-floors", is_flag=True, help="Leave out the leakage floors.")
@click.option("--no-cache", is_flag=True, help="Measure everything anew and keep nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON in place of the table.")
@click.option("--quiet", is_flag=True, help="No progress.")
def run_command(
    data: str,
    benchmark: str,
    detectors: str,
    external: tuple[str, ...],
    thresholds: tuple[str, ...],
    protocols: str | None,
    sweep: str,
    sweep_on: str | None,
    output: Path | None,
    workers: int | None,
    draws: int,
    limit: int | None,
    no_floors: bool,
    no_cache: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure detectors on a labelled set.

    One score a picture; brackets are 95 % intervals of a bootstrap over sources. Scores are cached by file content,
    detector, weights, protocol and perturbation: a killed run goes on when it is started again.
    """
    import tempfile

    from mai.bench import perturb
    from mai.bench.cache import ScoreCache
    from mai.bench.plan import Plan, check
    from mai.bench.run import Run
    from mai.bench.tables import markdown
    from mai.data.store import cache_folder
    from mai.errors import require
    from mai.machine import n_cpus

    require("sklearn.metrics", "bench", "Measuring")
    require("cv2", "bench", "The aligned protocol")
    labelled = _read(data, benchmark)
    has_web = any(row.view == "web" for row in labelled.rows)
    only_web = all(row.view == "web" for row in labelled.rows)
    named = _protocols(protocols, has_web, only_web)
    labelled = _part(labelled, named, limit) if limit else labelled
    names = perturb.sweep(sweep)
    on_web = has_web and "stability" in sweep.split(",")
    plan = Plan(
        detectors=tuple(filter(None, (part.strip() for part in detectors.split(",")))),
        protocols=named,
        perturbations=names,
        sweep_on=sweep_on or ("web" if on_web or only_web else "aligned" if "aligned" in named else named[0]),
        externals=tuple(_external(text) for text in external),
        thresholds=dict(_threshold(text) for text in thresholds),
        n_workers=workers or n_cpus(),
        n_draws=draws,
        with_floors=not no_floors,
    )
    for sentence in check(labelled, plan):
        click.echo(sentence, err=True)
    with tempfile.TemporaryDirectory(prefix="mai-bench-") as temporary:
        folder = Path(temporary) if no_cache else cache_folder() / "bench"
        cache = ScoreCache(folder / "scores.sqlite")
        try:
            report = Run(plan, labelled, cache, quiet or not sys.stderr.isatty()).result()
        finally:
            cache.close()
    told = shlex.join(["mai", *sys.argv[1:]])
    report["command"] = told
    text = markdown(report, told)
    if output:
        _write(output, report, text, labelled, plan.detectors)
    click.echo(json.dumps(report, indent=1) if as_json else text)


def _read(data: str, name: str) -> Any:
    from mai.bench import sets

    if name:
        return sets.read(sets.load(name), data)
    labelled = sets.read(sets.load("generic"), data)
    if any(row.split == "validation" for row in labelled.rows):
        return sets.read(sets.load("validation"), data)
    return labelled


def _part(labelled: Any, protocols: tuple[str, ...], limit: int) -> Any:
    """At most `limit` pictures of each class, spread evenly over those that the protocols look at."""
    from mai.data.labelled import LabelledSet

    rows = [row for row in labelled.rows if ("web" if row.view == "web" else "aligned") in
            {"web" if p == "web" else "aligned" for p in protocols}]  # fmt: skip
    kept: set[str] = set()
    for label in (0, 1):
        images = sorted({row.image for row in rows if row.label == label})
        kept |= (
            {images[i * len(images) // limit] for i in range(limit)} if len(images) > limit else set(images)
        )
    return LabelledSet(tuple(r for r in rows if r.image in kept), f"{labelled.name} (part)", labelled.root)


def _protocols(text: str | None, has_web: bool, only_web: bool) -> tuple[str, ...]:
    if text is None:
        return ("web",) if only_web else ("native", "aligned", "web") if has_web else ("native", "aligned")
    names = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    wrong = [name for name in names if name not in ("native", "aligned", "web")]
    if wrong or not names:
        raise click.UsageError(f"--protocols: '{', '.join(wrong)}' is none of native, aligned, web.")
    return names


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value.strip()):
        raise click.UsageError(f"{option}: write NAME=VALUE, not '{text}'.")
    return name.strip(), value.strip()


def _external(text: str) -> Any:
    from mai.bench.scorers import External

    return External(*_pair(text, "--external"))


def _threshold(text: str) -> tuple[str, float]:
    name, value = _pair(text, "--threshold")
    try:
        return name, float(value)
    except ValueError as error:
        raise click.UsageError(f"--threshold {name}: '{value}' is no number.") from error


def _write(
    folder: Path, report: dict[str, Any], text: str, labelled: Any, detectors: tuple[str, ...]
) -> None:
    from mai.bench.examples import examples
    from mai.bench.page import html

    folder.mkdir(parents=True, exist_ok=True)
    page = html(report, report["command"], examples(report, labelled, detectors))
    for name, content in (
        ("report.json", json.dumps(report, indent=1)),
        ("report.md", text),
        ("report.html", page),
    ):
        temporary = folder / f".{name}.part"
        temporary.write_text(content, "utf-8")
        temporary.replace(folder / name)


@command.command("compare")
@click.argument("one", type=click.Path(path_type=Path))
@click.argument("two", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of a table.")
def compare_command(one: Path, two: Path, as_json: bool) -> None:
    """Say what got better or worse from report ONE to report TWO on the pictures that both have."""
    from mai.bench.compare import as_text, compare, read_report

    rows = compare(read_report(one), read_report(two))
    click.echo(json.dumps(rows, indent=1) if as_json else as_text(rows))


@command.command("list")
def list_command() -> None:
    """List the benchmarks that MAI knows the layout of, with home and licence."""
    from mai.bench import sets

    for name in sets.names():
        known = sets.load(name)
        click.echo(f"{name}\n  {known.title}\n  {known.home}\n  licence: {known.licence}")
