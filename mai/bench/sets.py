"""Benchmarks by name: what a set is, where it lives, what its licence says, and how its folders become labelled rows.

A file of `mai/bench/sets/` is one benchmark; its stem is its name. Nobody's pictures are in the package: a person
gets the set where `home` says, and gives its folder as `--data`. Layouts follow what their pages and papers
describe and were checked here on small trees of the same shape, not on the sets themselves.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

from mai import config
from mai.data.labelled import LabelledSet, Row
from mai.errors import DataError, UnknownNameError, UsageError
from mai.images.kinds import is_picture

FOLDER = Path(__file__).parent / "sets"


@dataclass(frozen=True, slots=True)
class Rule:
    """Files of a pattern and what they are.

    Attributes:
        path: pattern below the set's folder, `/` between parts, `*` for one part, `**` for any; a part may bind a
            name: `{generator}`, `{source}`, `{content}`.
        label: `synthetic` or `authentic`.
        generator: name where the pattern binds none.
        source: name where the pattern binds none; the generator, or the pattern's folder.
    """

    path: str
    label: str
    generator: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One file of sets/.

    Attributes:
        title: for people.
        home: where the set lives.
        licence: what its page says; `not stated` where it says nothing.
        paper: title and where.
        rules: the layout; empty: read as any labelled set (docs/data.md).
        split: only rows of this split; empty: all.
        views: only rows of these views; empty: all.
        protocols: measured by default.
        note: what to know.
    """

    title: str
    home: str
    licence: str
    paper: str = ""
    rules: tuple[Rule, ...] = ()
    split: str = ""
    views: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ("native", "aligned")
    note: str = ""


def names() -> list[str]:
    """All benchmarks that the package knows."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Benchmark:
    """A benchmark by name, or a TOML file of the same form.

    Raises:
        UnknownNameError: neither.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UnknownNameError("benchmark", name, names())
    return config.read(Benchmark, path)


def read(benchmark: Benchmark, data: str) -> LabelledSet:
    """The set's rows, of the benchmark's split and views.

    Raises:
        UsageError: there is no such folder.
        DataError: nothing in it fits the layout.
    """
    if not benchmark.rules:
        from mai.data.sources import read_set

        found = read_set(data, one_class=True)
        rows = tuple(
            row for row in found.rows
            if (not benchmark.split or row.split == benchmark.split)
            and (not benchmark.views or row.view in benchmark.views)
        )  # fmt: skip
        if not rows:
            raise DataError(f"'{found.name}' has no rows of split '{benchmark.split or 'any'}'.")
        return LabelledSet(rows, found.name, found.root)
    root = Path(data).absolute()
    if not root.is_dir():
        raise UsageError(f"There is no folder '{data}'. {benchmark.title} lives at {benchmark.home}")
    rows_by_file: dict[str, Row] = {}
    for rule in benchmark.rules:
        for file in sorted(_files(root, rule.path)):
            rows_by_file.setdefault(str(file), _row(file, root, rule))
    if not rows_by_file:
        wanted = ", ".join(rule.path for rule in benchmark.rules)
        raise DataError(f"'{data}' does not look like {benchmark.title}: no picture at {wanted}.")
    return LabelledSet(tuple(rows_by_file[name] for name in sorted(rows_by_file)), benchmark.title, str(root))


def _files(root: Path, pattern: str) -> list[Path]:
    parts = ["*" if part.startswith("{") else part for part in pattern.split("/")]
    return [path for path in root.glob("/".join(parts)) if path.is_file() and is_picture(path.name)]


def _row(file: Path, root: Path, rule: Rule) -> Row:
    parts = file.relative_to(root).parts
    bound: dict[str, str] = {}
    pattern = rule.path.split("/")
    head = pattern[: pattern.index("**")] if "**" in pattern else pattern
    for part, name in zip(head, parts, strict=False):
        if part.startswith("{") and part.endswith("}"):
            bound[part[1:-1]] = name
        elif not fnmatch.fnmatch(name, part):
            break
    generator = bound.get("generator") or rule.generator or None
    label = int(rule.label == "synthetic")
    source = (
        bound.get("source") or rule.source or (generator if label else None) or "/".join(parts[:-1]) or "all"
    )
    return Row(
        str(file),
        label,
        source=f"{source}" if label or not generator else f"{generator} (authentic)",
        generator=generator if label else None,
        content=bound.get("content"),
    )
