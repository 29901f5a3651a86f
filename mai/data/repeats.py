"""Pictures that stand in a set more than once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mai.data.examine import Examined
from mai.data.labelled import Row
from mai.data.near import near_duplicate_groups


@dataclass(frozen=True, slots=True)
class Repeat:
    """Pictures that are the same, or nearly.

    Attributes:
        kind: `exact` (same bytes) or `near` (difference hashes at most 4 bits apart).
        rows: one row a picture.
    """

    kind: str
    rows: tuple[Row, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that they stand in."""
        return tuple(sorted({row.split for row in self.rows if row.split}))

    @property
    def is_across_labels(self) -> bool:
        """True if both classes claim them."""
        return len({row.label for row in self.rows}) > 1


def find_repeats(examined: Sequence[Examined]) -> tuple[Repeat, ...]:
    """Exact ones first, those over most splits first; views of one picture count as one."""
    exact: dict[str, dict[str, Examined]] = {}
    largest: dict[str, Examined] = {}
    for e in examined:
        if e.sha256:
            exact.setdefault(e.sha256, {}).setdefault(e.row.image, e)
        # Hashes of crops of plain areas agree by chance, so a picture is compared by its largest view.
        if e.hash is not None and (e.row.image not in largest or _area(e) > _area(largest[e.row.image])):
            largest[e.row.image] = e
    found = [Repeat("exact", tuple(e.row for e in same.values())) for same in exact.values() if len(same) > 1]
    known = {frozenset(row.image for row in repeat.rows) for repeat in found}
    pictures = list(largest.values())
    near: dict[int, list[Row]] = {}
    for e, number in zip(pictures, near_duplicate_groups([e.hash for e in pictures]), strict=True):
        near.setdefault(number, []).append(e.row)
    found += [
        Repeat("near", tuple(rows))
        for rows in near.values()
        if len(rows) > 1 and frozenset(row.image for row in rows) not in known
    ]
    return tuple(sorted(found, key=lambda r: (r.kind, -len(r.splits), not r.is_across_labels, -len(r.rows))))


def _area(examined: Examined) -> int:
    return examined.facts.width * examined.facts.height if examined.facts else 0
