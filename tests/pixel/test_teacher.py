"""A run may learn from exported weights beside its labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Ran, run_mai
from labelled_pictures import make_set
from small_network import make_weights

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from mai.errors import TrainingError  # noqa: E402
from mai.pixel.model import Pixel  # noqa: E402
from mai.training.recipe import TeacherPlan  # noqa: E402
from mai.training.teacher import Teacher  # noqa: E402


def views(n: int = 4, side: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).integers(0, 256, (n, side, side, 3), np.uint8))


def calibrated(weights: Path, slope: float, offset: float) -> str:
    config = json.loads((weights / "config.json").read_text())
    config["calibration"] = {"slope": slope, "offset": offset}
    (weights / "config.json").write_text(json.dumps(config))
    return str(weights)


def red(batch: torch.Tensor, slope: float = 0.1) -> torch.Tensor:
    return (batch[..., 0].float().mean((1, 2)) - 127.5) * slope


def test_the_target_is_label_and_calibrated_score(tmp_path: Path) -> None:
    weights = calibrated(make_weights(tmp_path), 2.0, -0.5)
    batch, labels = views(), torch.tensor([0.0, 1.0, 0.0, 1.0])
    logits = torch.tensor([0.3, -1.0, 2.0, 0.1], requires_grad=True)
    loss = Teacher(TeacherPlan(weights, share=0.25), 1).loss(lambda _: logits, batch, labels)
    score = torch.sigmoid(2.0 * red(batch) - 0.5)
    target = 0.75 * labels + 0.25 * score
    p = torch.sigmoid(logits)
    by_hand = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6)
    loss.backward()
    assert torch.allclose(logits.grad, (p - target).detach() / 4, atol=1e-6)


def test_maps_are_compared_place_by_place(tmp_path: Path) -> None:
    weights = calibrated(make_weights(tmp_path, has_patches=True), 1.5, 0.25)
    batch, labels = views(), torch.zeros(4)
    places = torch.linspace(-1, 1, 64).reshape(4, 4, 4)

    def network(_: torch.Tensor, with_patches: bool) -> tuple[torch.Tensor, torch.Tensor]:
        assert with_patches
        return places.mean((1, 2)), places

    plain, maps = (
        Teacher(TeacherPlan(weights, patches=w), 1).loss(network, batch, labels) for w in (1e-12, 0.1)
    )
    cells = batch[..., 0].float().reshape(4, 4, 8, 4, 8).mean((2, 4))
    wanted = (cells - 127.5) * 0.1 * 1.5 + 0.25
    assert (maps - plain).item() == pytest.approx(0.1 * ((places - wanted) ** 2).mean().item(), rel=1e-4)


def test_what_cannot_teach_is_refused(tmp_path: Path) -> None:
    blind = str(make_weights(tmp_path / "blind"))
    with pytest.raises(TrainingError, match="resnet_v1_0 has no map"):
        Teacher(TeacherPlan(blind, patches=0.1), 1)
    coarse = str(make_weights(tmp_path / "coarse", has_patches=True))
    with pytest.raises(TrainingError, match=r"\(4, 4\) places where the network that learns has \(1, 1\)"):
        Teacher(TeacherPlan(coarse, patches=0.1), 1).loss(Pixel(), views(), torch.zeros(4))


def test_what_does_not_go_together_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network without a map that is to learn one, and a teacher whose network has another size."""
    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    data = make_set(tmp_path / "set", {"train": 8, "validation": 4})
    teacher = str(make_weights(tmp_path, has_patches=True))  # takes 32 px alone

    def train(patches: float) -> Ran:
        settings = {"teacher.weights": teacher, "teacher.patches": patches, "run.epochs": 1, "run.batch_size": 4,
                    "run.layout": "contiguous", "run.precision": "fp32"}  # fmt: skip
        words = [w for key, value in settings.items() for w in ("--set", f"{key}={value}")]
        return run_mai(monkeypatch, capsys, "train", "resnet", "--data", data, "--output", tmp_path / "run",
                       "--threads", "1", "--workers", "0", *words)  # fmt: skip

    found = train(0.1)
    assert (found.code, "'resnet' gives no map while it learns" in found.err) == (1, True), found.err
    found = train(0.0)
    assert (found.code, "cannot look at views of 200 px" in found.err) == (1, True), found.err


def test_pixel_gives_its_map_with_its_logit() -> None:
    model = Pixel().eval()
    with torch.no_grad():
        logits, places = model(views(2, 96), with_patches=True)
        assert places.shape == (2, 3, 3)
        assert torch.allclose(places, model.patches(views(2, 96)))
        assert torch.allclose(logits, model(views(2, 96)))
        assert torch.allclose(places.mean((1, 2)), logits, atol=1e-5)


def test_a_network_learns_from_a_teacher_alone_and_keeps_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels count for nothing here (share 1): the loss falls only if the teacher's answers are learned."""
    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    data = make_set(tmp_path / "set", {"train": 12, "validation": 4})
    teacher = str(make_weights(tmp_path, slope=0.02))

    def train(epochs: int, *more: str) -> Ran:
        settings = {"teacher.weights": teacher, "teacher.share": 1.0, "run.epochs": epochs, "run.batch_size": 4,
                    "run.layout": "contiguous", "run.precision": "fp32", "optimizer.lr": 1e-3}  # fmt: skip
        words = [w for key, value in settings.items() for w in ("--set", f"{key}={value}")]
        return run_mai(monkeypatch, capsys, "train", "resnet", "--data", data, "--output", tmp_path / "run",
                       "--threads", "1", "--workers", "0", *words, *more)  # fmt: skip

    assert train(2).code == 0
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["teacher"]
    again = train(3, "--resume")
    assert again.code == 0, "the same teacher goes on"
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    calibrated(Path(teacher), 3.0, 0.0)
    other = train(4, "--resume")
    assert other.code == 1
    assert "not those that taught" in other.err
