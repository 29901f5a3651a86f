"""What a labelled set is: rows that say of a file which class it is of, and where it comes from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, get_args

from mai.errors import UsageError

Facet = Literal["label", "split", "source", "generator", "content", "view"]
FACETS: tuple[str, ...] = get_args(Facet)


class Stored(Protocol):
    """An encoded picture inside a table: read when asked for, small to pickle."""

    @property
    def n_bytes(self) -> int:
        """Size of the encoded picture."""
        ...

    def read(self) -> bytes:
        """The encoded bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One file with its label.

    Attributes:
        file: absolute path; for a picture inside a table an id, `/data/a.parquet::17`.
        label: 1 synthetic, 0 authentic.
        split: `train`, `validation`, `calibration` or `test`; None where not assigned.
        source: where the picture comes from: the unit of splitting, balancing and bootstrapping.
        generator: what made it; None for authentic or unknown.
        content: `photo`, `face` ... as the set says.
        image: identity of the picture, shared by all views of it; the file where the set names none.
        view: `whole`, `crop` ...; None where the file is the picture.
        stored: the encoded picture, or how to read it, where it is in no file of its own; see `data`.
    """

    file: str
    label: int
    split: str | None = None
    source: str | None = None
    generator: str | None = None
    content: str | None = None
    image: str = ""
    view: str | None = None
    stored: bytes | Stored | None = None

    def __post_init__(self) -> None:
        if not self.image:
            object.__setattr__(self, "image", self.file)

    @property
    def data(self) -> bytes | None:
        """The encoded bytes of a picture inside a table, read now; None for a file."""
        return self.stored if self.stored is None or isinstance(self.stored, bytes) else self.stored.read()

    @property
    def class_name(self) -> str:
        """`synthetic` or `authentic`."""
        return "synthetic" if self.label else "authentic"

    @property
    def unit(self) -> str:
        """What figures are resampled by: the source, else the picture."""
        return self.source or self.image

    def n_bytes(self) -> int:
        """Size of the encoded picture in bytes; -1 if the file is gone."""
        if self.stored is not None:
            return len(self.stored) if isinstance(self.stored, bytes) else self.stored.n_bytes
        try:
            return Path(self.file).stat().st_size
        except OSError:
            return -1


@dataclass(frozen=True)
class LabelledSet:
    """Rows that belong together.

    Attributes:
        rows: in the order that the set gives them.
        name: for people.
        root: folder that files are relative to in the fingerprint.
    """

    rows: tuple[Row, ...]
    name: str
    root: str = "/"

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 hex digest over the sorted rows: the same for the same set on every machine.

        Each row counts with its file relative to `root`, label, split, source, image, view and size in bytes.
        """
        lines = []
        for row in self.rows:
            image = "" if row.image == row.file else row.image
            values = (
                self.relative(row.file),
                row.label,
                row.split,
                row.source,
                image,
                row.view,
                row.n_bytes(),
            )
            lines.append("\x1f".join("" if value is None else str(value) for value in values))
        digest = hashlib.sha256()
        for line in sorted(lines):
            digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()

    def relative(self, file: str) -> str:
        """A row's file as it is called inside the set, with `/`."""
        path = Path(file)
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()

    def select(self, *, split: str | None = None, views: Collection[str | None] | None = None) -> LabelledSet:
        """The rows of one split, and of some views; None does not choose. May be empty.

        Args:
            split: `train`, `validation`, `calibration` or `test`.
            views: names of views; None among them means rows without a view.
        """
        rows = tuple(
            row
            for row in self.rows
            if (split is None or row.split == split) and (views is None or row.view in views)
        )
        parts = [split] if split else []
        parts += [str(view) for view in views] if views is not None else []
        return replace(self, rows=rows, name=f"{self.name}[{', '.join(parts)}]" if parts else self.name)

    def counts(self) -> dict[str, int]:
        """Number of `files`, and of pictures in all (`images`) and of each class."""
        return count(self.rows)

    def counts_by(self, facet: str) -> dict[str, dict[str, int]]:
        """Counts for each value of one facet, the largest first; `-` stands for rows without one.

        Raises:
            UsageError: it is none of FACETS.
        """
        if facet not in FACETS:
            raise UsageError(f"A set is counted by {', '.join(FACETS)}, not by '{facet}'.")
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            value = row.class_name if facet == "label" else getattr(row, facet)
            groups.setdefault(value or "-", []).append(row)
        counted = {value: count(rows) for value, rows in groups.items()}
        return dict(sorted(counted.items(), key=lambda item: (-item[1]["files"], item[0])))


def pair_of(image: str) -> str | None:
    """The pair that a picture is of, by its identity `PAIR/authentic` or `PAIR/synthetic`; None for others."""
    pair, slash, member = image.rpartition("/")
    return pair if slash and pair and member in {"authentic", "synthetic"} else None


def count(rows: Iterable[Row]) -> dict[str, int]:
    """Number of files, and of pictures in all and of each class."""
    rows = tuple(rows)
    pictures = {row.image: row.label for row in rows}
    labels = Counter(pictures.values())
    return {"files": len(rows), "images": len(pictures), "synthetic": labels[1], "authentic": labels[0]}
