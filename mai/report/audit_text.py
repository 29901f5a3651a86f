"""The audit of a labelled set as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mai.counting import counted
from mai.report.escape import visible

if TYPE_CHECKING:
    from mai.data.audit import Audit, ViewLeak
    from mai.measure.metrics import Interval

N_SHOWN = 8


def audit_text(found: Audit) -> str:
    """The whole audit, a few lines a part; text of the set is made safe for a terminal."""
    return "\n".join(visible(line) for line in _lines(found))


def _lines(found: Audit) -> Iterator[str]:
    counts = found.labelled.counts()
    yield (
        f"{found.labelled.name}: {counts['images']:,} pictures in {counts['files']:,} files, "
        f"{counts['synthetic']:,} synthetic, {counts['authentic']:,} authentic"
    )
    yield f"fingerprint {found.labelled.fingerprint[:16]}"
    for facet in ("split", "view", "content", "source", "generator"):
        yield from _facet(found, facet)
    yield from _problems(found)
    yield from _leaks(found)
    yield ""
    if found.is_clean:
        yield "Clean: nothing was found that spoils training or figures."
        yield from (view.doubt for view in found.views if view.doubt)
        n = sum(repeat.is_across_labels for repeat in found.repeats)
        if n:
            yield f"Look at the {n:,} groups of duplicates across labels: pairs made on purpose, or a wrong label?"
    else:
        yield "Not clean:"
        yield from (f"  - {finding}" for finding in found.findings)


def _facet(found: Audit, facet: str) -> Iterator[str]:
    values = found.labelled.counts_by(facet)
    if set(values) == {"-"}:
        return
    yield ""
    yield f"by {facet}{'':<{26 - len(facet)}} pictures  synthetic  authentic"
    for value, n in list(values.items())[:N_SHOWN]:
        yield f"  {value[:26]:<26} {n['images']:>9,} {n['synthetic']:>10,} {n['authentic']:>10,}"
    if len(values) > N_SHOWN:
        yield f"  and {len(values) - N_SHOWN:,} more"


def _problems(found: Audit) -> Iterator[str]:
    name = found.labelled.relative
    yield ""
    yield f"broken files: {len(found.broken):,}"
    for broken in found.broken[:N_SHOWN]:
        yield f"  {name(broken.row.file)}: {broken.problem}"
    for kind in ("exact", "near"):
        groups = [repeat for repeat in found.repeats if repeat.kind == kind]
        n_splits = sum(len(repeat.splits) > 1 for repeat in groups)
        n_labels = sum(repeat.is_across_labels for repeat in groups)
        n_all = counted(len(groups), "group")
        yield f"{kind} duplicates: {n_all}, {n_splits:,} across splits, {n_labels:,} across labels"
        for repeat in [repeat for repeat in groups if len(repeat.splits) > 1 or repeat.is_across_labels][
            :N_SHOWN
        ]:
            files = (
                f"{name(row.file)} ({row.class_name}, {row.split or 'no split'})" for row in repeat.rows[:3]
            )
            yield "  " + " = ".join(files)
    yield f"sources in several splits: {len(found.shared_sources):,}"
    for source, splits in list(found.shared_sources.items())[:N_SHOWN]:
        yield f"  {source}: " + ", ".join(f"{n:,} in {split}" for split, n in splits.items())


def _leaks(found: Audit) -> Iterator[str]:
    yield ""
    yield "what the files give away without the picture (AUROC, .5 is nothing; 95 % interval over sources)"
    for view in found.views:
        yield from _leak(view, found.is_chained)


def _leak(view: ViewLeak, is_chained: bool) -> Iterator[str]:
    head = "files" if view.view is None else f"view {view.view}"
    yield f"  {head}: {view.n_synthetic:,} synthetic, {view.n_authentic:,} authentic, {view.n_sources:,} sources"
    yield f"    as stored                       {_figure(view.stored)}{'  LEAK' if view.is_leaking else ''}"
    yield f"      width and height alone        {_figure(view.shape)}"
    yield f"      with bytes (not judged)       {_figure(view.stored_bytes)}"
    if is_chained:
        yield f"    after the training chain        {_figure(view.chained)}   n = {view.n_chained:,}"
        yield f"      with bytes (not judged)       {_figure(view.chained_bytes)}"
    for fact in view.facts:
        yield f"    {fact.words} (alone: {fact.auroc})"


def _figure(interval: Interval | None) -> str:
    return str(interval) if interval else "too few pictures to tell"
