"""docs/training.md against the code: every recipe key, every file of a run and of a weights folder."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text("utf-8")


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_recipe_keys", ROOT / "docs" / "make_recipe_keys.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_of_keys_is_that_of_the_code(make: ModuleType) -> None:
    assert make.page() == PAGE, "run: python docs/make_recipe_keys.py"


def flat(table: dict[str, object], before: str = "") -> Iterator[str]:
    """Dotted keys of all values of nested tables."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield before + name


def test_every_key_of_every_recipe_is_explained(make: ModuleType) -> None:
    import tomllib

    told = set(re.findall(r"^\| `([\w.]+)` \|", PAGE, re.MULTILINE))
    assert {row[0] for row in make.keys()} <= told  # noqa: SIM118
    for path in ROOT.glob("mai/*/recipes/*.toml"):
        assert set(flat(tomllib.loads(path.read_text("utf-8")))) <= told, path


def test_keys_that_may_change_on_resume_are_listed() -> None:
    from mai.training.resume import RUN_MAY_CHANGE

    paragraph = next(text for text in PAGE.split("\n\n") if text.startswith("**Stopping and going on.**"))
    # The layout and precision of a checkpoint are kept whatever the recipe says.
    assert {f"run.{key}" for key in RUN_MAY_CHANGE - {"layout", "precision"}} <= set(
        re.findall(r"`([\w.]+)`", paragraph)
    )


def test_columns_of_the_metrics_are_told() -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("| `metrics.csv`"))
    for word in ("loss", "learning rate", "AUROC", "images a second", "seconds"):
        assert word in line
