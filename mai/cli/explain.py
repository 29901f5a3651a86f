"""mai explain: judge one image and write a report on it, a page for people or a case file for programs.

Exit codes: 0 judged ('cannot tell' is judged), 1 not judged (the report says why), 2 wrong use.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mai.cli._format_flags import format_flag

if TYPE_CHECKING:
    from mai.report.case import Case

SUFFIXES = {".html": "html", ".htm": "html", ".json": "json"}
"""Format of --output by its ending, where none is asked for."""


@click.command(short_help="Judge one image and write a report on it.")
@click.argument("image", metavar="IMAGE", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="report.html or case.json; - for standard output. Default: IMAGE's name and .mai.html, in this folder.",
)
@format_flag("html", "A page for people, whatever the file's ending.")
@format_flag("json", "The case file mai.case/1.")
@click.option(
    "--detectors",
    metavar="A,B",
    help="Detectors to ask, in this order. Default: c2pa, metadata, watermark, pixel.",
)
@click.option(
    "--fpr", type=float, metavar="RATE", help="Share of authentic images that may be flagged, e.g. 0.01."
)
@click.option(
    "--threshold", type=float, metavar="T", help="Score from which an image counts as AI-generated."
)
@click.option("--prior", type=float, metavar="P", help="Share of AI-generated images at the source.")
@click.option("--weights", metavar="DIR", help="Weights in place of the shipped ones: a folder or a name.")
@click.option(
    "--trust", type=click.Path(path_type=Path), metavar="FILE", help="PEM file of C2PA trust anchors."
)
@click.option(
    "--max-bytes", type=click.IntRange(1), metavar="N", help="Largest file, in bytes. Default: 64 MiB."
)
@click.option(
    "--max-pixels", type=click.IntRange(1), metavar="N", help="Largest picture. Default: 120 million."
)
@click.option("--quiet", is_flag=True, help="Only write the report.")
def command(
    *,
    image: Path,
    output: Path | None,
    form: str | None,
    detectors: str | None,
    fpr: float | None,
    threshold: float | None,
    prior: float | None,
    weights: str | None,
    trust: Path | None,
    max_bytes: int | None,
    max_pixels: int | None,
    quiet: bool,
) -> None:
    """Judge one image: print the evidence, and write a report that holds all of it.

    The page is one file that fetches nothing: the answer in plain words, each layer's evidence, how often the
    threshold errs, what was not checked, and a heat map where a network has one. It holds the picture.

    Exit codes: 0 judged, 1 not judged (the report says why), 2 wrong use.
    """
    from mai.images.decode import Limits
    from mai.pipeline import Scanner
    from mai.scanning.explain import explain

    output, form = _where(image, output, form)
    usual = Limits()
    limits = Limits(max_bytes or usual.max_bytes, max_pixels or usual.max_pixels)
    scanner = Scanner(
        detectors, fpr=fpr, threshold=threshold, prior=prior, limits=limits, weights=weights, trust=trust
    )
    case = explain(scanner, image)
    _write(case, output, form)
    if not quiet and str(output) != "-":
        _print(case, output)
    sys.exit(0 if case.record.label else 1)


def _where(image: Path, output: Path | None, form: str | None) -> tuple[Path, str]:
    """Where the report goes and as what.

    Raises:
        UsageError: it would take the place of the picture, a folder was named, or the ending says no format.
    """
    from mai.errors import UsageError
    from mai.images.find import display

    if image.is_dir():
        shown = display(str(image))
        raise UsageError(
            f"'{shown}' is a folder; mai explain looks at one image. For all of a folder: "
            f"mai scan '{shown}' --html --output report.html"
        )
    if output is None:
        output = Path(f"{image.name or 'image'}.mai.{form or 'html'}")
    elif output.exists() and image.exists() and output.samefile(image):
        raise UsageError(f"{output} is the image itself. Give another --output.")
    ending = output.suffix.lower()
    if form is None and ending and ending not in SUFFIXES:
        raise UsageError(
            f"--output {output}: a report is no '{ending}' file. Endings: {', '.join(SUFFIXES)}; for another one say "
            "--html or --json."
        )
    return output, form or SUFFIXES.get(ending, "html")


def _write(case: Case, output: Path, form: str) -> None:
    from mai.errors import MaiError
    from mai.report.destination import whole_file

    if form == "json":
        from mai.report.case import case_json

        text = case_json(case)
    else:
        from mai.report.explanation import explanation_page

        text = explanation_page(case)
    try:
        if str(output) == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            with whole_file(output) as stream:
                stream.write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise MaiError(f"The report cannot be written to {output}: {error.strerror or error}.") from error


def _print(case: Case, output: Path) -> None:
    """The same as text, and where the report lies."""
    from mai.images.find import display
    from mai.report import layers, words
    from mai.report.text import Explained

    if hasattr(sys.stdout, "reconfigure"):  # names in other scripts must not stop it on a C locale
        sys.stdout.reconfigure(errors="backslashreplace")
    told = Explained(sys.stdout)
    told.write(case.record)
    verdict = case.record.verdict
    if verdict and verdict.thresholds and case.measured:
        told.say(words.operating_point(verdict.thresholds, case.measured.table))
        told.say("")
    told.list("Not checked:", layers.unchecked(case.record.evidence, case.settings["detectors"]))
    told.say("")
    told.say(f"Report: {display(str(output))}")
    told.finish()
