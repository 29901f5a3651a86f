"""Fields read from a file, the limits on reading them, and text made harmless."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

MAX_BLOCK = 16 << 20
"""Bytes of one block (a text, an XMP packet, an EXIF block). Depth maps make XMP of megabytes; 16 MiB holds them."""

MAX_TOTAL = 32 << 20
"""Bytes of all blocks of one file together, counted after they are unpacked."""

MAX_PARTS = 50_000
"""Chunks, segments, boxes or chained parts walked in one file. A PNG of 120 MP has about 10,000 chunks."""

MAX_FIELDS = 512
"""Fields kept of one file."""

MAX_JSON = 8 << 20
"""Characters of JSON that are parsed; workflows with pictures inside reach about 5 million."""

MAX_REMEMBERED = 1 << 20
"""Characters of a JSON text whose object is kept for the next rule that asks."""

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@dataclass(frozen=True, slots=True)
class Field:
    """One named text at its place.

    Attributes:
        place: `png`, `exif`, `xmp`, `iptc`, `samsung`, `stealth` or `comment`: where the format put it.
        name: keyword, tag or property there (`parameters`, `UserComment`, `photoshop:Credit`).
        value: the text as it stands in the file; not harmless, see `clean`.
    """

    place: str
    name: str
    value: str

    @property
    def key(self) -> str:
        """`place:name`, as rules name it."""
        return f"{self.place}:{self.name}"


@dataclass(slots=True)
class Reading:
    """All that was read of one file.

    Attributes:
        container: kind of the file (mai.images.kinds), None if it is not known.
        fields: texts that rules may match, in file order.
        camera: EXIF facts of a capture: name -> text or number.
        problems: what was damaged, cut or left out, one sentence each.
        n_bytes_left: how much may still be unpacked.
    """

    container: str | None = None
    fields: list[Field] = field(default_factory=list)
    camera: dict[str, str | float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    n_bytes_left: int = MAX_TOTAL

    def add(self, place: str, name: str, value: str) -> None:
        """Keep a text, unless the file has too many."""
        if len(self.fields) < MAX_FIELDS:
            self.fields.append(Field(place, name, value))
        else:
            self.problem(f"It has more than {MAX_FIELDS} fields; the rest was not read.")

    def problem(self, sentence: str) -> None:
        """Note what could not be read, each sentence once."""
        if sentence not in self.problems and len(self.problems) < 16:
            self.problems.append(sentence)

    def allowance(self) -> int:
        """How many bytes the next block may have."""
        return max(0, min(MAX_BLOCK, self.n_bytes_left))

    def take(self, block: bytes | memoryview, what: str) -> bytes:
        """A block as bytes, counted; empty, with a problem, if it is over the limits.

        Args:
            block: the block's bytes.
            what: names it in the problem, e.g. `XMP`.
        """
        if len(block) > self.allowance():
            self.problem(f"The {what} has {len(block):,} bytes, over the limit; it was not read.")
            return b""
        self.n_bytes_left -= len(block)
        return bytes(block)

    def of(self, *keys: str) -> Iterator[Field]:
        """The fields with one of these keys, in the order of the keys."""
        for key in keys:
            yield from (each for each in self.fields if each.key == key)

    def first(self, *keys: str) -> str | None:
        """The text of the first such field, None if there is none."""
        return next((each.value for each in self.of(*keys)), None)


def clean(text: str, max_chars: int) -> str:
    """One line without control, format or private characters, cut; what is safe to show.

    Args:
        text: foreign text.
        max_chars: the most characters that come back, an ellipsis among them.
    """
    text = text[: max_chars * 8]  # before the slow part
    kept = "".join(" " if unicodedata.category(char) in _INVISIBLE else char for char in text)
    line = re.sub(r"\s+", " ", kept).strip()
    return line if len(line) <= max_chars else line[: max_chars - 1].rstrip() + "…"


def decoded(block: bytes) -> str:
    """UTF-8 where it is that, else Latin-1, which every byte string is."""
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError:
        return block.decode("latin-1")


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that the whole text is, None if it is none (or too large or nested to be read).

    Several rules ask for the same text, so the last ones are remembered: read what comes back, never change it.
    """
    if len(text) > MAX_JSON or not text[:64].lstrip("\ufeff \t\r\n").startswith("{"):
        return None
    return _parsed(text) if len(text) > MAX_REMEMBERED else _remembered(text)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        # strict: line ends and zeros inside of strings are let pass, for programs write them.
        value = json.loads(text.lstrip("\ufeff").rstrip("\0 \t\r\n"), strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


_remembered = lru_cache(maxsize=8)(_parsed)
