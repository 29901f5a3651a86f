"""What holds for every file of the tree."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import mai
from mai import weights

PACKAGE = Path(mai.__file__).parent
MODULES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if not path.stem.startswith("_") or "__" in path.stem
]

# A path that only one machine has: in a person's home, or a top-level folder that no system has of its own.
MACHINE = re.compile(
    rb"(^|[^A-Za-z0-9_./])/((home|Users)/[a-z]|(work|farm|root|tmp/bash_jobs)/)", re.MULTILINE
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_module_says_what_it_is(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert text
    assert text.splitlines()[0].rstrip("`").endswith((".", ":")), "the first line is a sentence"


def test_no_path_of_one_machine(root: Path) -> None:
    if not (root / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the tracked files are known to git only, and this is no checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    found = []
    for name in filter(None, listed.split(b"\0")):
        path = root / name.decode()
        if path.is_file() and b"\0" not in (data := path.read_bytes()):
            found += [f"{name.decode()}: {match.group().decode()}" for match in MACHINE.finditer(data)]
    assert not found, "\n".join(found)


def test_a_path_of_one_machine_is_seen() -> None:
    assert MACHINE.search(b"see " + b"/home" + b"/ann/x.jpg")
    assert not MACHINE.search(b"https://example.org/work/paper and /tmp/x and /usr/bin/env")


@pytest.mark.parametrize("name", weights.available())
def test_shipped_weights_are_what_their_card_says(name: str) -> None:
    shipped = weights.load(name)
    assert shipped.name == name
    family = name.rsplit("_v", 1)[0]
    assert family == shipped.architecture or family.startswith(f"{shipped.architecture}_")
    assert shipped.model_bytes()  # raises when the sha256 differs
    assert name in (shipped.folder / "README.md").read_text("utf-8")
