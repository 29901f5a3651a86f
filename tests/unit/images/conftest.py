import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pictures import samples


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    return samples()
