"""A scan's rows and a person's corrections -> labelled rows to train on.

A correction names a file of the scan and what it really is. Only what a person has said counts as a label; verdicts
that nobody corrected can be taken too, but a network that learns its own verdicts learns its own mistakes, so that has
to be asked for.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mai.data.columns import FILE_COLUMNS, LABEL_COLUMNS, label_of
from mai.data.labelled import LabelledSet, Row
from mai.errors import DataError, ImageError, UsageError
from mai.images import lists

SKIP = frozenset({"", "skip", "unknown", "unsure", "?"})
"""Words of the label column that leave a picture out."""

NAMES = ("authentic", "synthetic")


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of it.

    Attributes:
        labelled: the set.
        changed: verdict of the scan -> label of the person -> pictures, for example inconclusive -> synthetic -> 12.
        left_out: reason -> files.
    """

    labelled: LabelledSet
    changed: dict[str, dict[str, int]]
    left_out: dict[str, list[str]]


def read_corrections(path: Path) -> dict[str, int | None]:
    """Path as written -> 1 synthetic, 0 authentic, None: leave it out.

    Raises:
        DataError: no such columns, an unknown label, or one path with two labels; names the line.
        UsageError: there is no such file.
    """
    found: dict[str, int | None] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = lists.records(file)
            names = [name for name in reader.fieldnames or [] if name]
            place = next((name for name in ("path", *FILE_COLUMNS) if name in names), None)
            label = next((name for name in LABEL_COLUMNS if name in names), None)
            if place is None or label is None:
                raise DataError(
                    f"{path.name} needs the columns path and label; it has: {', '.join(names) or 'none'}."
                )
            for record in reader:
                where, word = f"{path.name}, line {reader.line_num}", (record[label] or "").strip()
                name = (record[place] or "").strip()
                if not name:
                    raise DataError(f"{where}: the column '{place}' is empty.")
                value = None if word.lower() in SKIP else label_of(word)
                if value is None and word.lower() not in SKIP:
                    raise DataError(f"{where}: the label is '{word}'; use synthetic, authentic, or skip.")
                if name in found and found[name] != value:
                    raise DataError(f"{where}: '{name}' was given another label above.")
                found[name] = value
    except OSError as error:
        raise UsageError(f"The corrections '{path}' cannot be read: {error.strerror}.") from error
    except (csv.Error, ImageError) as error:
        raise DataError(f"{path} cannot be read as CSV: {str(error).rstrip('.')}.") from error
    if not found:
        raise DataError(f"{path.name} holds no correction.")
    return found


def import_scan(
    rows: Iterable[Mapping[str, Any]],
    corrections: Mapping[str, int | None],
    name: str,
    *,
    root: Path | None = None,
    with_verdicts: bool = False,
    source: str | None = None,
) -> Imported:
    """Make a labelled set.

    Args:
        rows: of a scan (`path`, `status`, `label`, and `image.sha256` or `sha256` where it is there).
        corrections: see read_corrections; a path counts as the scan wrote it, or as the same file written otherwise.
        name: of the set, for people.
        root: folder that relative paths of the scan start from; the current one by default.
        with_verdicts: also take pictures that were judged synthetic or authentic and not corrected.
        source: of all its rows; None: each picture stands for itself, and near-duplicates are split together.

    Raises:
        UsageError: a correction is of no file of the scan.
        DataError: nothing is left, or one picture (by content) has two labels.
    """
    base = root or Path.cwd()
    resolved = {_resolved(text, base): text for text in corrections}
    used: set[str] = set()
    made: list[Row] = []
    labels: dict[str, tuple[int, str]] = {}
    changed: dict[str, Counter[str]] = {}
    left_out: dict[str, list[str]] = {}
    for row in rows:
        path, verdict = str(row["path"]), row.get("label")
        key = path if path in corrections else resolved.get(_resolved(path, base))
        if key is not None:
            used.add(key)
        label = corrections[key] if key is not None else _verdict(verdict) if with_verdicts else None
        if label is None:
            continue
        file = _file(path, base)
        problem = _problem(file, row)
        if problem:
            left_out.setdefault(problem, []).append(path)
            continue
        sha = _sha(row) or path
        if sha in labels:
            if labels[sha][0] != label:
                raise DataError(
                    f"'{path}' and '{labels[sha][1]}' are the same picture with two labels. Keep one."
                )
            left_out.setdefault("the same picture stands there already", []).append(path)
            continue
        labels[sha] = (label, path)
        if key is not None:
            changed.setdefault(str(verdict or "not judged"), Counter())[NAMES[label]] += 1
        made.append(Row(str(file), label, source=source))
    unknown = [text for text in corrections if text not in used]
    if unknown:
        told = ", ".join(repr(text) for text in unknown[:3])
        raise UsageError(
            f"{len(unknown)} of {len(corrections)} corrections are of no file of the scan: {told}"
            f"{' ...' if len(unknown) > 3 else ''}. Write paths as the scan does (see its column path)."
        )
    if not made:
        raise DataError(
            f"Nothing is left to train on: {', '.join(left_out) or 'every correction says skip'}."
        )
    return Imported(
        LabelledSet(tuple(made), name, str(base)),
        {verdict: dict(counts) for verdict, counts in changed.items()},
        left_out,
    )


def _resolved(path: str, base: Path) -> str:
    return os.path.normpath(base / path)


def _file(shown: str, base: Path) -> Path:
    """The file of a row: bytes of its name that are not UTF-8 stand there as \\xNN."""
    plain = base / shown
    if "\\x" not in shown or os.path.lexists(plain):
        return plain
    raw = re.sub(
        rb"\\x([0-9a-fA-F]{2})", lambda m: bytes([int(m[1], 16)]), shown.encode("utf-8", "surrogateescape")
    )
    return base / os.fsdecode(raw)


def _verdict(label: Any) -> int | None:
    return {"synthetic": 1, "authentic": 0}.get(str(label))


def _sha(row: Mapping[str, Any]) -> str | None:
    image = row.get("image")
    found = image.get("sha256") if isinstance(image, Mapping) else row.get("sha256")
    return str(found) if found else None


def _problem(file: Path, row: Mapping[str, Any]) -> str | None:
    """Why a row cannot be trained on."""
    if row.get("status") not in (None, "ok"):
        return f"it could not be judged ({row['status']})"
    if not file.is_file():
        return "it is no file of its own (inside an archive or a table), or it is gone"
    wanted = _sha(row)
    if wanted and hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
        return "it was changed since the scan"
    return None
