"""Is a labelled set fit to train and measure on: broken files, duplicates, sources in two splits, leaks.

The audit returns values; mai/report/audit_text.py and audit_html.py show them to people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mai.counting import counted
from mai.data.examine import Chain, Examined, Progress, default_chain, examine_all
from mai.data.floor import BYTES, MAX_PICTURES, SHAPE, Column, FactScore, columns_of, floor, telling_facts
from mai.data.labelled import FACETS, LabelledSet, Row, count
from mai.data.repeats import Repeat, find_repeats
from mai.errors import DataError
from mai.measure.metrics import Interval

SCHEMA = "mai.audit/1"

LEAK = 0.6
"""A set leaks where the lower end of its floor's 95 % interval lies above this AUROC.

Sources differ a little in size and codec by chance; a good set of a few hundred pictures has a floor of .5 to .6.
"""

OPEN = 0.75
"""No leak was shown, and none is ruled out, where the upper end of that interval lies at or above this AUROC."""

MAX_CHAINED = 4000
"""Pictures of a view that go through the chain: enough for an interval of about .02."""


@dataclass(frozen=True, slots=True)
class ViewLeak:
    """The leakage test of one view. One score a picture, figures with 95 % intervals over sources.

    Attributes:
        view: None for files that are pictures.
        n_synthetic: pictures.
        n_authentic: pictures.
        n_sources: what the intervals are drawn over.
        shape: floor on width and height alone.
        stored: floor on all facts but bytes: what is judged.
        stored_bytes: with bytes.
        n_chained: pictures that went through the chain.
        chained: floor on all facts but bytes of what the chain lets a network see.
        chained_bytes: with bytes.
        facts: single facts that give the class away.
    """

    view: str | None
    n_synthetic: int
    n_authentic: int
    n_sources: int
    shape: Interval | None
    stored: Interval | None
    stored_bytes: Interval | None
    n_chained: int
    chained: Interval | None
    chained_bytes: Interval | None
    facts: tuple[FactScore, ...]

    @property
    def is_leaking(self) -> bool:
        """True if the files as stored give the class away, see LEAK."""
        return self.stored is not None and self.stored.low > LEAK

    @property
    def doubt(self) -> str | None:
        """Where no leak was shown, but the sources are too few to say that there is none: a sentence. See OPEN."""
        if self.stored is None or self.is_leaking or self.stored.high < OPEN:
            return None
        name = "the files" if self.view is None else f"the files of view '{self.view}'"
        return (
            f"Whether {name} give the class away stays open: with {self.n_sources:,} sources the AUROC may be anything "
            f"from {self.stored.low:.2f} to {self.stored.high:.2f}. More sources narrow it."
        )


@dataclass(frozen=True, slots=True)
class Audit:
    """What the audit of a set found.

    Attributes:
        labelled: the set.
        broken: files that cannot be decoded.
        repeats: pictures that are the same, or nearly.
        shared_sources: source that stands in two splits -> pictures a split.
        views: the leakage test.
        is_chained: a chain was tried.
        findings: why the set is not clean, a sentence each.
    """

    labelled: LabelledSet
    broken: tuple[Examined, ...]
    repeats: tuple[Repeat, ...]
    shared_sources: dict[str, dict[str, int]]
    views: tuple[ViewLeak, ...]
    is_chained: bool
    findings: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """True if nothing was found that spoils training or figures."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; files are relative to the set."""
        name = self.labelled.relative
        return {
            "schema": SCHEMA,
            "data": self.labelled.name,
            "fingerprint": self.labelled.fingerprint,
            "clean": self.is_clean,
            "findings": list(self.findings),
            "counts": self.labelled.counts() | {f: self.labelled.counts_by(f) for f in FACETS},
            "broken": [
                {"file": name(e.row.file), "status": e.status, "message": e.problem} for e in self.broken
            ],
            "duplicates": [
                {
                    "kind": repeat.kind,
                    "across_splits": len(repeat.splits) > 1,
                    "across_labels": repeat.is_across_labels,
                    "files": [
                        {"file": name(row.file), "label": row.class_name, "split": row.split}
                        for row in repeat.rows
                    ],
                }
                for repeat in self.repeats
            ],
            "sources_in_several_splits": self.shared_sources,
            "leakage": {"limit": LEAK, "views": [_leak_dict(view) for view in self.views]},
        }


def _leak_dict(view: ViewLeak) -> dict[str, Any]:
    def figure(interval: Interval | None) -> dict[str, float] | None:
        return dict(zip(("auroc", "low", "high"), interval.to_list(), strict=True)) if interval else None

    return {
        "view": view.view,
        "n_synthetic": view.n_synthetic,
        "n_authentic": view.n_authentic,
        "n_sources": view.n_sources,
        "leaks": view.is_leaking,
        "width_and_height": figure(view.shape),
        "as_stored": figure(view.stored),
        "as_stored_with_bytes": figure(view.stored_bytes),
        "n_chained": view.n_chained,
        "after_chain": figure(view.chained),
        "after_chain_with_bytes": figure(view.chained_bytes),
        "facts": [
            {"fact": f.name, "words": f.words, "n_synthetic": f.n_synthetic, "n_authentic": f.n_authentic}
            | (figure(f.auroc) or {})
            for f in view.facts
        ],
    }


def audit(
    labelled: LabelledSet,
    *,
    chain: Chain | None = None,
    with_chain: bool = True,
    limit: int | None = None,
    n_workers: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Audit:
    """Look at every file of a set, and say what spoils it.

    Args:
        labelled: the set, or the part that `select` chose.
        chain: what pixels go through before a network sees them; None takes the aligned protocol.
        with_chain: False leaves the chain out.
        limit: at most so many pictures, drawn at random.
        n_workers: processes.
        seed: of the draws, folds and bootstraps.
        progress: called with files done and files in all.
        say: told what comes next, for people who wait.

    Raises:
        DataError: there is nothing to audit.
        MissingExtraError: scikit-learn or OpenCV is not installed.
    """
    if not labelled.rows:
        raise DataError(f"'{labelled.name}' has no rows to audit.")
    rng = np.random.default_rng(seed)
    if limit is not None:
        images = sorted({row.image for row in labelled.rows})
        kept = {images[i] for i in rng.permutation(len(images))[:limit]}
        labelled = replace(labelled, rows=tuple(row for row in labelled.rows if row.image in kept))
    used = (chain or default_chain()) if with_chain else None
    chained = _draw_chained(labelled.rows, rng)
    examined = examine_all(labelled.rows, used, chained, n_workers, progress)
    if say:
        say("comparing pictures")
    repeats = find_repeats(examined)
    views = []
    for view in labelled.counts_by("view"):
        if say:
            say(f"testing what the files give away{'' if view == '-' else f' ({view})'}")
        views.append(_leak(None if view == "-" else view, examined, seed))
    found = Audit(
        labelled,
        broken=tuple(e for e in examined if e.problem is not None),
        repeats=repeats,
        shared_sources=_shared_sources(labelled.rows),
        views=tuple(views),
        is_chained=used is not None,
    )
    return replace(found, findings=tuple(_findings(found)))


def _draw_chained(rows: Sequence[Row], rng: np.random.Generator) -> set[int]:
    """At most MAX_CHAINED pictures of each class and view, half of each class."""
    kinds: dict[tuple[str | None, int], list[int]] = {}
    for i, row in enumerate(rows):
        kinds.setdefault((row.view, row.label), []).append(i)
    return {int(i) for some in kinds.values() for i in rng.permutation(some)[: MAX_CHAINED // 2]}


def _shared_sources(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    splits: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        if row.source and row.split:
            splits.setdefault(row.source, {}).setdefault(row.split, set()).add(row.image)
    return {
        source: {split: len(images) for split, images in sorted(of.items())}
        for source, of in sorted(splits.items())
        if len(of) > 1
    }


def _leak(view: str | None, examined: Sequence[Examined], seed: int) -> ViewLeak:
    unique = {e.row.image: e for e in examined if e.row.view == view and e.facts}  # one score a picture
    every = list(unique.values())
    if len(every) > MAX_PICTURES:
        drawn = np.random.default_rng(seed).permutation(len(every))[:MAX_PICTURES]
        every = [every[i] for i in sorted(drawn)]
    counts = count(e.row for e in every)
    labels = np.array([e.row.label == 1 for e in every], bool)
    units = [e.row.unit for e in every]
    columns = columns_of([e.facts for e in every if e.facts])
    seen = [(e, e.seen) for e in every if e.seen]
    seen_columns = columns_of([facts for _, facts in seen])
    seen_labels = np.array([e.row.label == 1 for e, _ in seen], bool)
    seen_units = [e.row.unit for e, _ in seen]
    has_both = 0 < labels.sum() < len(labels)
    return ViewLeak(
        view,
        n_synthetic=counts["synthetic"],
        n_authentic=counts["authentic"],
        n_sources=len(set(units)),
        shape=floor({name: columns[name] for name in SHAPE}, labels, units, seed),
        stored=floor(_without_bytes(columns), labels, units, seed),
        stored_bytes=floor(columns, labels, units, seed),
        n_chained=len(seen),
        chained=floor(_without_bytes(seen_columns), seen_labels, seen_units, seed) if seen else None,
        chained_bytes=floor(seen_columns, seen_labels, seen_units, seed) if seen else None,
        facts=telling_facts(columns, labels, [e.row for e in every]) if has_both else (),
    )


def _without_bytes(columns: dict[str, Column]) -> dict[str, Column]:
    return {name: column for name, column in columns.items() if name not in BYTES}


def _findings(found: Audit) -> Iterable[str]:
    if found.broken:
        kinds = Counter(e.status for e in found.broken)
        said = ", ".join(f"{n:,} {status.replace('_', ' ')}" for status, n in kinds.most_common())
        yield f"{len(found.broken):,} of {len(found.labelled.rows):,} files cannot be used: {said}."
    for kind, word in (("exact", "the same picture"), ("near", "near duplicates")):
        n = sum(repeat.kind == kind and len(repeat.splits) > 1 for repeat in found.repeats)
        if n:
            yield f"{counted(n, 'group')} of files: {word}, in two splits. Keep them in one."
    n = sum(repeat.kind == "exact" and repeat.is_across_labels for repeat in found.repeats)
    if n:
        yield f"{counted(n, 'group')} of files: the same picture with both labels. One label is wrong."
    if found.shared_sources:
        stand = counted(len(found.shared_sources), "source stands", "sources stand")
        yield f"{stand} in two splits. Split by source: mai data split."
    for view in found.views:
        if view.is_leaking:
            name = "The files" if view.view is None else f"The files of view '{view.view}'"
            yield (
                f"{name} give the class away without the picture: AUROC {view.stored} on "
                f"{view.n_synthetic + view.n_authentic:,} pictures, where {LEAK} is the limit."
            )
