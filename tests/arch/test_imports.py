"""The house's stairs: imports inside `mai` go one way (docs: CONTRIBUTING.md, 'Which way imports go')."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mai

PACKAGE = Path(mai.__file__).parent

FLOORS: tuple[tuple[str, ...], ...] = (
    ("types", "errors", "counting"),
    ("config", "machine"),
    ("images",),
    ("provenance",),
    ("measure",),
    ("weights",),
    ("data",),
    ("training",),
    ("resnet", "pixel", "moondream", "probe"),
    ("detectors",),
    ("verdict",),
    ("report",),
    ("cache",),
    ("choice", "asking"),
    ("pipeline",),
    ("jobs",),
    ("scanning", "bench", "pairs"),
    ("serve",),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
NEIGHBOURS = {"types", "errors"}
"""Rooms on one floor do not import one another; these two may."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in FLOOR)


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import of MAI in a file, wherever it stands in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mai":
            yield node.lineno, f"mai.{node.attr}"
        elif isinstance(node, ast.Import):
            yield from (
                (node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "mai"
            )
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = ["mai", *path.relative_to(PACKAGE).parts[:-1]]
                module = ".".join([*base[: len(base) - node.level + 1], *filter(None, [module])])
            if module == "mai":
                yield from ((node.lineno, f"mai.{alias.name}") for alias in node.names)
            elif module.startswith("mai."):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def complaint(path: Path, name: str) -> str | None:
    """Why a file may not import that name, or None."""
    room, parts = room_of(path), name.split(".")
    other = parts[1] if len(parts) > 1 else ""
    if other not in FLOOR:
        # `import mai` and `from mai import __version__` are about no room; the public names of `mai` lead
        # through the front door to rooms that may lie above, so only the top floor uses them.
        harmless = room == "cli" or not other or other.startswith("__")
        return None if harmless else f"{name}: import it from its room"
    if room == other:
        if room == "detectors" and parts[2] != "base" and not parts[2].startswith("_"):
            return f"detector {path.stem} imports {name}: no detector imports another"
        return None
    if FLOOR[other] > FLOOR[room]:
        return f"{room} imports {name}, which lies above it"
    if FLOOR[other] == FLOOR[room] and not {room, other} <= NEIGHBOURS:
        return f"{room} imports {name}, its neighbour"
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path: Path) -> None:
    found = [f"line {line}: {why}" for line, name in imported(path) if (why := complaint(path, name))]
    assert not found, "\n".join(found)


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
    rooms |= {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}
    assert rooms <= FLOOR.keys(), f"no floor in FLOORS: {sorted(rooms - FLOOR.keys())}"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("images/decode.py", "mai.verdict.decide"),
        ("resnet/train.py", "mai.pixel.model"),
        ("detectors/resnet.py", "mai.detectors.pixel"),
        ("pipeline.py", "mai.cli.scan"),
        ("scanning/local.py", "mai.scan"),
    ],
)
def test_a_wrong_import_is_seen(file: str, name: str) -> None:
    assert complaint(PACKAGE / file, name)
