"""What all tests share. This file's folder is on sys.path, so that `small_network` can be imported."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Read by torch and its libraries when they are loaded: tests beside one another on a small machine do not fight
# for its cores, and sums do not depend on how many there are.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

# What tests scan must not come from what a person scanned before, nor go there.
os.environ["MAI_DATA"] = tempfile.mkdtemp(prefix="mai-tests-data-")
os.environ["MAI_CACHE"] = tempfile.mkdtemp(prefix="mai-tests-")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout, with material that the project may use but not ship."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"the folder {folder.name}/ with unshippable material is not beside the checkout")
    return folder
