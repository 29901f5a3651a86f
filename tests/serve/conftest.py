"""A service that most tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_network import make_weights

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from running_service import Running, picture, serving  # only where httpx is


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network: as real as the shipped one, and quicker."""
    return make_weights(tmp_path_factory.mktemp("weights"), has_patches=True)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Running]:
    """One service that most tests share."""
    folder = tmp_path_factory.mktemp("service")
    with serving(
        "--workers", "2", "--weights", str(weights), "--data", str(folder / "data"), "--max-bytes", "2000000",
        "--max-pixels", "4000000", "--max-files", "8", log=folder / "log",
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def jpeg() -> bytes:
    return picture()
