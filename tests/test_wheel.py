"""The wheel works on its own: a fresh environment, a plain install, a folder that is not the checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

NEVER = ("torch", "sklearn", "scipy", "pyarrow", "datasets", "matplotlib", "cv2", "onnx")


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, root, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and what it brings, nothing else."""
    folder = tmp_path_factory.mktemp("plain") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=folder)
    return python


def test_wheel_holds_every_file_of_the_package(root: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files", "mai"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("the tracked files are known to git only, and this is no checkout")
    missing = [name for name in listed.stdout.splitlines() if (root / name).exists() and name not in names]
    # Averages to train on from are the repository's alone (pyproject: exclude).
    assert {Path(name).name for name in missing} <= {"average.pt"}
    assert "mai/py.typed" in names
    assert any(name.startswith("mai/weights/") and name.endswith("/model.onnx") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "examples/", "docs/"))]


def test_plain_install_scans_outside_the_checkout(root: Path, python: Path, tmp_path: Path) -> None:
    for name in ("authentic", "synthetic"):
        shutil.copytree(root / "examples" / name, tmp_path / name)
    mai = python.with_name("mai" + python.suffix)
    rows = [
        json.loads(line) for line in run(mai, "scan", "--jsonl", "--quiet", ".", cwd=tmp_path).splitlines()
    ]
    assert len(rows) == len([*tmp_path.glob("*/*.*")])
    assert {row["status"] for row in rows} == {"ok"}
    assert all(
        evidence["status"] == "ok" for row in rows for evidence in row["evidence"] if evidence["weights"]
    )
    assert any(row["score"] is not None for row in rows)


def test_plain_install_brings_and_loads_nothing_heavy(root: Path, python: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util, json, pathlib, sys, mai\n"
        f"record = mai.scan({str(root / 'examples/authentic/coffee.jpg')!r})\n"
        "print(json.dumps([str(pathlib.Path(mai.__file__).parent), record.status,\n"
        f"    [name for name in {NEVER!r} if importlib.util.find_spec(name) or name in sys.modules]]))"
    )
    home, status, heavy = json.loads(run(python, "-c", code, cwd=tmp_path))
    assert not Path(home).is_relative_to(root)
    assert status == "ok"
    assert heavy == []


def test_missing_extra_names_the_install(python: Path, tmp_path: Path) -> None:
    for name in ("authentic", "synthetic"):
        (tmp_path / "data" / name).mkdir(parents=True)
    mai = python.with_name("mai" + python.suffix)
    command = [str(mai), "train", "resnet", "--data", str(tmp_path / "data")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "pip install 'mai-identifier[train]'" in done.stderr
