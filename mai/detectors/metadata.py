"""What the file itself says, unsigned: text that generators leave in it, IPTC's source types, China's AI label.

Read structurally by mai/provenance, without decoding pixels; mai/provenance/rules.py is the table of what counts.
Anybody can write these fields, so the verdict says so and weighs them below a signature. Camera tags are told as
context: no proof of anything, as they are as easily written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mai.detectors.base import DetectorSettings, Kind, Needs
from mai.provenance import containers, generation, rules, source_type, stealth
from mai.provenance.reading import Reading, clean
from mai.provenance.rules import Statement
from mai.types import Evidence, Image

MAX_SHOWN = 60
"""Characters of a foreign text in the note; details hold more."""

_ORDER = ("synthetic", "edited", "capture")
_REASONS = {"synthetic": "declared_metadata", "edited": "declared_edit"}


class Detector:
    """Looks at the encoded bytes. See the head of this module."""

    name = "metadata"
    needs: Needs = "bytes"
    kind: Kind = "statement"
    weights: str | None = None

    def __init__(self, settings: DetectorSettings | None = None) -> None:
        """Needs no settings."""

    def look(self, images: Sequence[Image]) -> list[Evidence]:
        """One Evidence an image: `ok` where the file says something, `absent` where it says nothing."""
        return [self._look(image.data) for image in images]

    def _look(self, data: bytes | None) -> Evidence:
        if data is None:
            return Evidence(self.name, status="skipped", note="Pixels in memory carry no metadata.")
        reading = containers.read(data)
        if reading.container in ("PNG", "WEBP"):
            stealth.read(data, reading)
        statements = rules.judge(reading)
        details = _details(reading, statements)
        if not statements and not reading.camera:
            return Evidence(self.name, status="absent", note=_nothing(reading), details=details)
        return Evidence(self.name, note=_note(statements, details), details=details)


def _details(reading: Reading, statements: Sequence[Statement]) -> dict[str, Any]:
    """The facts, see docs/detectors.md; nothing in them is longer than it is of use, or does anything."""
    said = {statement.declares for statement in statements}
    declares = next((each for each in _ORDER if each in said), None)
    details: dict[str, Any] = {"declares": declares, "state": "unsigned" if statements else "none"}
    if declares in _REASONS:
        details["reason"] = _REASONS[declares]
    if "edited" in said:
        details["edited"] = True
    leading = [each for each in statements if each.declares == declares]
    if leading:
        details["generator"] = next((each.generator for each in leading if each.generator), None)
        details["strength"] = "strong" if any(e.strength == "strong" for e in leading) else "medium"
        details["statements"] = [
            {
                "generator": each.generator,
                "title": each.title,
                "declares": each.declares,
                "strength": each.strength,
                "field": each.field,
            }
            for each in statements
        ]
        details |= generation.read(reading, {each.generator for each in statements}).to_dict()
    kinds = [
        word
        for each in reading.of("xmp:Iptc4xmpExt:DigitalSourceType")
        if (word := source_type.term(each.value))
    ]
    if kinds:
        details["digital_source_type"] = kinds[0]
    if reading.camera:
        details["camera"] = {
            name: clean(value, 80) if isinstance(value, str) else value
            for name, value in reading.camera.items()
        }
    if comment := reading.first("comment:COM", "comment:GIF"):
        details["comment"] = clean(comment, 200)
    if reading.problems:
        details["problems"] = [clean(problem, 200) for problem in reading.problems]
    return details


def _note(statements: Sequence[Statement], details: dict[str, Any]) -> str:
    """One or two sentences for people."""
    leading = [each for each in statements if each.declares == details["declares"]]
    if not leading:
        return f"{_camera(details)} Anybody can write such tags: context, not proof."
    titles = " and ".join(dict.fromkeys(each.title for each in leading))
    fields = ", ".join(dict.fromkeys(each.field for each in leading))
    says = {
        "synthetic": f"The file says that it is AI-generated: {titles} (in {fields}).",
        "edited": f"The file says that it was edited with AI: {titles} (in {fields}).",
        "capture": f"The file says that it is a capture: {titles} (in {fields}).",
    }[details["declares"]]
    asked = f' Prompt: "{clean(details["prompt"], MAX_SHOWN)}".' if "prompt" in details else ""
    return f"{says}{asked} It is not signed: anybody could have written it."


def _camera(details: dict[str, Any]) -> str:
    camera = details.get("camera", {})
    make, model = str(camera.get("make", "")), str(camera.get("model", ""))
    name = model if model.startswith(make) else f"{make} {model}"
    return f"Camera tags: {clean(name, MAX_SHOWN)}." if name.strip() else "It has camera tags."


def _nothing(reading: Reading) -> str:
    if reading.problems:
        return f"Nothing about its origin could be read. {clean(reading.problems[0], 200)}"
    return "The file says nothing about its origin, which means nothing: metadata are often removed."
