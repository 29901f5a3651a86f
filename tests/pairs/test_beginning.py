"""What is wrong with a first call leaves nothing behind; what was begun says how to begin anew."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from cli_runner import run_mai

from mai.pairs.settings import Settings
from mai.pairs.start import begin


def make(authentic: Path, folder: Path, **changed: str) -> list[str]:
    """A call that would be right, but for what is changed."""
    options = {"--authentic": str(authentic), "--captioner": "words", "--generator": "tiny", **changed}
    return [
        "pairs",
        "make",
        "--output",
        str(folder),
        "--quiet",
        *[word for pair in options.items() for word in pair],
    ]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"--captioner": "nix"}, "There is no captioner named 'nix'."),
        ({"--captioner": "csv:nowhere.csv"}, "The captions nowhere.csv cannot be read"),
        ({"--captioner": "moondream:./nowhere"}, "There is no folder './nowhere'"),
        ({"--captioner": "hf:a/b/c"}, "There is no folder 'a/b/c'"),
        ({"--authentic": "nowhere"}, "There is no data at "),
        ({"--generator": "sd3.5-lage"}, "Did you mean 'sd3.5-large'?"),
        ({"--generator": "small64", "--edit": "image"}, "--edit needs a diffusers pipeline"),
        ({"--generator": "sd3.5-large", "--memory": "1GB"}, "takes at least"),
        ({"--hold-out": "flux"}, "--hold-out flux is not among the generators"),
    ],
)
def test_a_slip_leaves_no_folder(
    changed: dict[str, str],
    sentence: str,
    authentic: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "ds"
    ran = run_mai(monkeypatch, capsys, *make(authentic, folder, **changed))
    assert sentence in ran.err
    assert ran.code in {1, 2}
    assert not folder.exists()


@pytest.mark.parametrize(
    ("package", "changed"),
    [
        ("pyarrow", {}),
        ("tokenizers", {"--captioner": "tiny"}),
        ("diffusers", {}),
        ("ray", {"--engine": "ray"}),
    ],
)
def test_a_missing_package_leaves_no_folder(
    package: str,
    changed: dict[str, str],
    authentic: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = importlib.import_module

    def lacking(name: str, *rest: str) -> object:
        if name.split(".", maxsplit=1)[0] == package:
            raise ModuleNotFoundError(f"No module named '{package}'", name=package)
        return real(name, *rest)

    monkeypatch.setattr("mai.errors.importlib.import_module", lacking)
    folder = tmp_path / "ds"
    ran = run_mai(monkeypatch, capsys, *make(authentic, folder, **changed))
    assert ran.code == 2
    assert f"needs the package '{package}'" in ran.err
    assert not folder.exists()


def test_a_hosted_generator_without_its_key_leaves_no_folder(
    authentic: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    hosted = tmp_path / "hosted.toml"
    hosted.write_text(
        'kind = "http"\nid = "a"\nurl = "https://example.org/v1/images/generations"\nkey_variable = "NO_SUCH_KEY"\n'
    )
    folder = tmp_path / "ds"
    ran = run_mai(monkeypatch, capsys, *make(authentic, folder, **{"--generator": str(hosted)}))
    assert ran.code == 2
    assert "NO_SUCH_KEY" in ran.err
    assert not folder.exists()


def test_what_nothing_was_made_with_may_be_begun_anew(
    authentic: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "ds"
    begin(folder, Settings(authentic=str(authentic), captioner="txt"))
    ran = run_mai(monkeypatch, capsys, *make(authentic, folder))
    assert ran.code == 2
    assert "started with captioner 'txt', not 'words'" in ran.err
    assert "or delete the folder: no caption is made yet" in ran.err
    (folder / "captions").mkdir()
    (folder / "captions" / "00000.parquet").write_bytes(b"")
    ran = run_mai(monkeypatch, capsys, *make(authentic, folder))
    assert "delete" not in ran.err
