"""What the tests of pairs share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # pair_material.py, slow_engine.py
from pair_material import make_authentic

torch.set_num_threads(1)
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture(scope="session")
def authentic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four pictures, 210 to 330 px."""
    return make_authentic(tmp_path_factory.mktemp("authentic") / "photos", 24)
