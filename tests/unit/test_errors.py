"""Errors: the next step is one that works, and they travel between processes."""

from __future__ import annotations

import pickle
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import mai
from mai.errors import MissingExtraError, UnknownNameError, pip, require

ASK = "from mai.errors import require; require('no_such_package', 'train', 'Training')"


def said_by(python: str | Path) -> str:
    """What a Python that lacks the package says, in a fresh process that no shell has activated anything for."""
    done = subprocess.run(
        [str(python), "-c", ASK],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(mai.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr


def test_an_environment_is_called_by_its_own_name(tmp_path: Path) -> None:
    folder = tmp_path / "my env"  # a space, as a person's folder may have
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    if not python.exists():
        pytest.skip("environments have no bin/python on this system")
    assert f"Run: '{python}' -m pip install 'mai-identifier[train]'" in said_by(python)


def test_without_an_environment_it_is_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert pip() == "pip"
    with pytest.raises(MissingExtraError, match=r"Run: pip install 'mai-identifier\[train\]'$"):
        require("no_such_package", "train", "Training")


def test_a_row_names_no_path_of_this_machine() -> None:
    error = MissingExtraError("pillow_heif", "heif", "Reading HEIC")
    assert error.plain.endswith("Run: pip install 'mai-identifier[heif]'")
    assert sys.executable not in error.plain


@pytest.mark.parametrize(
    "error", [MissingExtraError("ray", "scale", "The engine"), UnknownNameError("recipe", "bse", ["base"])]
)
def test_errors_travel_between_processes(error: Exception) -> None:
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), str(there), vars(there)) == (type(error), str(error), vars(error))
