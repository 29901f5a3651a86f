"""What is said of weights that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mai import weights
from mai.errors import MaiError, UnknownNameError, UsageError, WeightsError


def test_a_family_is_named_and_suggested() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no weights named 'pixle'\. Did you mean 'pixel'\?"
    ) as caught:
        weights.load("pixle")
    assert {"pixel", "pixel_fast", *weights.available()} <= set(caught.value.known)


@pytest.mark.parametrize("name", ["./nix", "some/nix", "~/nix", Path("nix")])
def test_a_folder_that_is_not_there(
    name: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=rf"There is no folder '{name}'. Give a folder that `mai export` made"
    ):
        weights.load(name)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ([], "holds no weights: it has no config.json. Give a folder that `mai export` made"),
        (["best.pt"], "is a run of mai train, no weights yet. Export it: mai export ARCH "),
    ],
)
def test_a_folder_without_weights(made: list[str], told: str, tmp_path: Path) -> None:
    for name in made:
        (tmp_path / name).touch()
    with pytest.raises(WeightsError) as caught:
        weights.load(str(tmp_path))
    assert told in str(caught.value)
    with pytest.raises(WeightsError, match="is a file, not a folder of weights"):
        (tmp_path / "model.onnx").touch()
        weights.load(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read as weights: Expecting"),
        ('{"format": "mai.weights/1"}', "it has no 'name'"),
        ('{"format": "mai.weights/9"}', "this MAI reads 'mai.weights/1'. Export the weights again"),
    ],
)
def test_a_config_that_is_none(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(MaiError) as caught:
        weights.load(tmp_path)
    assert told in str(caught.value)
    assert "Error(" not in str(caught.value)
