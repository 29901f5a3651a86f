"""Norms that are held: statistics stay, gains and offsets learn."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from mai.training.loop import hold_norms  # noqa: E402


def test_held_norms_keep_their_statistics_and_still_learn() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5))
    model.train()
    hold_norms(model)
    norm = model[1]
    before = norm.running_mean.clone()
    model(torch.randn(8, 3, 9, 9) + 5).square().mean().backward()
    assert torch.equal(norm.running_mean, before)
    assert bool(norm.weight.grad.abs().sum() > 0)
    assert model[2].training, "only norms are held"
    model.train()
    model(torch.randn(8, 3, 9, 9) + 5)
    assert not torch.equal(norm.running_mean, before)
