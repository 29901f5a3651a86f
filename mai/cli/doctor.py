"""mai doctor: what is installed, found and working.

Exit code 0 if all that a plain scan needs works. A missing extra, or a detector that needs one, is told but
is no fault; a format that Pillow was built without is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

PLAIN = ("numpy", "pillow", "onnxruntime", "click", "rich")
"""Packages of a plain install."""

FORMATS = {
    "JPEG": "jpg",
    "WebP": "webp",
    "AVIF": "avif",
    "JPEG 2000": "jpg_2000",
    "TIFF": "libtiff",
    "PNG": "zlib",
}
"""Format -> name of Pillow's feature that reads it."""


@click.command(short_help="What is installed, found and working.")
@click.argument("name", required=False)
@click.option(
    "--golden",
    type=click.Path(path_type=Path),
    help="With NAME moondream: a folder of the reference's numbers; exit code 0 if ours agree to 1e-4.",
)
@click.option("--fetch", is_flag=True, help="With NAME moondream: fetch the real weights and try them.")
@click.option("--source", help="With --fetch: a folder or ORG/NAME in place of the pinned weights.")
@click.option("--json", "as_json", is_flag=True, help="JSON for programs.")
def command(name: str | None, golden: Path | None, fetch: bool, source: str | None, as_json: bool) -> None:
    """Say what is installed, found and working; exit code 0 if all is well, 1 if not.

    NAME: one part in depth: system, packages, formats, weights, detectors, scan, moondream, or a detector by its name.
    """
    if name == "moondream" and (golden is not None or fetch):
        _moondream(golden, source, as_json)
    if golden is not None or fetch:
        raise click.UsageError("--golden and --fetch are of `mai doctor moondream`.")
    from mai.detectors import base
    from mai.errors import UnknownNameError
    from mai.report.escape import visible

    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "system": system,
        "packages": packages,
        "formats": formats,
        "weights": weights,
        "detectors": detectors,
        "scan": scan,
    }
    if name is not None and name not in parts and name not in base.names():
        raise UnknownNameError("part", name, [*parts, *base.names()])
    if name is None:
        findings = {part: look() for part, look in parts.items()}
    elif name in parts:
        findings = {name: parts[name]()}
    else:
        findings = {name: [detector(name)]}
    is_well = all(finding["ok"] is not False for part in findings.values() for finding in part)
    if as_json:
        click.echo(json.dumps({"well": is_well, **findings}, indent=2))
    else:
        for part, found in findings.items():
            click.echo(part)
            for finding in found:
                mark = {True: "ok", False: "FAULT", None: "-"}[finding["ok"]]
                click.echo(f"  {mark:<5}  {visible(finding['name']):<22} {visible(str(finding['found']))}")
        click.echo("All is well." if is_well else "Something is wrong: see FAULT above.")
    sys.exit(0 if is_well else 1)


def _moondream(golden: Path | None, source: str | None, as_json: bool) -> NoReturn:
    from mai.errors import require

    require("torch", "vlm", "Moondream")
    from mai.moondream import checkup

    findings = checkup.against_golden(golden) if golden else checkup.fetched(source or "")
    is_well = all(finding["ok"] is not False for finding in findings)
    if as_json:
        click.echo(json.dumps({"well": is_well, "moondream": findings}, indent=2))
    else:
        for finding in findings:
            click.echo(f"{'ok' if finding['ok'] else 'FAULT':<5}  {finding['name']:<22} {finding['found']}")
        click.echo("All is well." if is_well else "Something is wrong: see FAULT above.")
    sys.exit(0 if is_well else 1)


def _finding(name: str, ok: bool | None, found: str) -> dict[str, Any]:
    """One line: ok True, False (a fault) or None (absent, and allowed to be)."""
    return {"name": name, "ok": ok, "found": found}


def system() -> list[dict[str, Any]]:
    """Versions, CPUs."""
    import platform

    import mai
    from mai.machine import n_cpus

    return [
        _finding("mai", True, mai.__version__),
        _finding("python", sys.version_info >= (3, 11), platform.python_version()),
        _finding("platform", True, platform.platform()),
        _finding("CPUs usable", True, str(n_cpus())),
    ]


def packages() -> list[dict[str, Any]]:
    """Packages of a plain install, then those of the extras, read from the installed metadata."""
    import re
    from importlib import metadata

    from mai.errors import pip

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    findings = []
    for package in PLAIN:
        found = version(package)
        told = found or f"missing. Run: {pip()} install {package}"
        findings.append(_finding(package, found is not None, told))
    try:
        required = metadata.requires("mai-identifier") or []
    except metadata.PackageNotFoundError:
        return [*findings, _finding("mai-identifier", None, "runs from its source folder, not installed")]
    extras: dict[str, set[str]] = {}
    for text in required:
        match = re.match(r"([A-Za-z0-9._-]+).*extra == ['\"]([a-z]+)['\"]", text)
        if (
            match is not None
            and match[2] not in ("all", "dev")
            and match[1] not in {*PLAIN, "mai-identifier"}
        ):
            extras.setdefault(match[2], set()).add(match[1])
    for package in sorted({package for own in extras.values() for package in own}):
        found = version(package)
        # Of the extras that bring it, the one that brings least beside it.
        extra = min(
            (name for name in extras if package in extras[name]), key=lambda name: (len(extras[name]), name)
        )
        told = found or f"not installed; brought by: {pip()} install 'mai-identifier[{extra}]'"
        findings.append(_finding(package, True if found else None, told))
    return findings


def formats() -> list[dict[str, Any]]:
    """What Pillow was built to read, and what is added to it."""
    import importlib.util

    from PIL import features

    from mai.errors import pip

    findings = []
    for name, feature in FORMATS.items():
        has = bool(features.check(feature))
        findings.append(_finding(name, has, "read" if has else "Pillow was built without it"))
    colour = bool(features.check("littlecms2"))
    findings.append(
        _finding("ICC colour", colour, "read" if colour else "Pillow was built without littlecms2")
    )
    heif = importlib.util.find_spec("pillow_heif") is not None
    told = "read" if heif else f"needs: {pip()} install 'mai-identifier[heif]'"
    findings.append(_finding("HEIC", True if heif else None, told))
    return findings


def weights() -> list[dict[str, Any]]:
    """Each folder of weights, its model checked against its hash."""
    from mai import weights as room
    from mai.errors import MaiError

    findings = []
    for name in room.available():
        try:
            n_bytes = len(room.load(name).model_bytes())
            findings.append(_finding(name, True, f"{n_bytes / 1e6:.1f} MB, hash matches its card"))
        except MaiError as error:
            findings.append(_finding(name, False, str(error)))
    return findings or [_finding("weights", None, "none are in this installation")]


def detector(name: str) -> dict[str, Any]:
    """Load one detector and let it look at a drawn picture."""
    from time import perf_counter

    from mai.errors import MaiError, MissingExtraError, WeightsError
    from mai.pipeline import Scanner

    try:
        start = perf_counter()
        scanner = Scanner([name])
        loaded = perf_counter()
        record = scanner.scan(_drawn())
        looked = perf_counter()
    except MissingExtraError as error:
        return _finding(name, None, str(error))
    except MaiError as error:
        # A network that ships none is absent, not broken; `mai scan` tells below whether one is missed.
        is_absent = isinstance(error, WeightsError) and not _has_weights(name)
        return _finding(name, None if is_absent else False, str(error))
    if record.status != "ok":
        return _finding(name, False, record.message or record.status)
    used = scanner.detectors[name].weights
    took = f"loaded in {(loaded - start) * 1000:.0f} ms, looked in {(looked - loaded) * 1000:.0f} ms"
    return _finding(name, True, f"{used + ', ' if used else ''}{took}")


def _has_weights(name: str) -> bool:
    from mai.weights import families

    return name in families()


def detectors() -> list[dict[str, Any]]:
    """Each detector of the package."""
    from mai.detectors import base

    return [detector(name) for name in base.names()]


def scan() -> list[dict[str, Any]]:
    """What `mai scan` without options does."""
    from mai.errors import MaiError
    from mai.pipeline import Scanner
    from mai.report.words import verdict_words

    try:
        scanner = Scanner()
        record = scanner.scan(_drawn())
    except MaiError as error:
        return [_finding("mai scan", False, str(error))]
    told = f"{', '.join(scanner.detectors)}: a drawn picture gives '{verdict_words(record)}'"
    return [
        _finding("mai scan", record.status == "ok", told if record.status == "ok" else str(record.message))
    ]


def _drawn() -> bytes:
    """A small PNG with smooth colours, drawn here: what it is judged as does not matter."""
    import io

    import numpy as np
    from PIL import Image

    ramp = np.linspace(0, 255, 320, dtype=np.uint8)
    pixels = np.stack(
        [np.tile(ramp, (320, 1)), np.tile(ramp[:, None], (1, 320)), np.full((320, 320), 90)], -1
    )
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()
