"""The network to the letter, its loss and optimizer, and the same numbers from PyTorch, ONNX and the detector."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from labelled_pictures import draw

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from mai import config  # noqa: E402
from mai.errors import ConfigError, TrainingError  # noqa: E402
from mai.resnet.model import ResNet  # noqa: E402
from mai.training import architectures, loop  # noqa: E402
from mai.training.onnx_export import export, shipped_form  # noqa: E402
from mai.training.optimizer import make_optimizer  # noqa: E402
from mai.training.recipe import Recipe  # noqa: E402
from mai.training.start import average_of, fill, read_state, save_average  # noqa: E402

nn = torch.nn
ARCHITECTURE = architectures.load("resnet")
BASE = config.read(Recipe, ARCHITECTURE.recipes["base"])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def test_layers_are_those_of_the_note() -> None:
    def told(layer: nn.Module) -> tuple[object, ...]:
        if isinstance(layer, nn.Conv2d):
            return (
                "conv",
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
            )
        if isinstance(layer, nn.MaxPool2d):
            return ("max", layer.kernel_size, layer.stride, layer.padding)
        if isinstance(layer, nn.Linear):
            return ("linear", layer.in_features, layer.out_features)
        return (type(layer).__name__,)

    layers = [told(layer) for layer in ResNet().modules() if not list(layer.children())]
    assert layers == [
        ("conv", 3, 16, (3, 3), (1, 1), (1, 1)), ("max", 2, 2, 0), ("ReLU",),
        ("conv", 16, 32, (3, 3), (1, 1), (1, 1)), ("max", 2, 2, 0), ("ReLU",),
        ("conv", 32, 64, (3, 3), (1, 1), (1, 1)), ("max", 2, 2, 0), ("ReLU",),
        ("linear", 40_000, 120), ("ReLU",), ("linear", 120, 30), ("ReLU",), ("linear", 30, 1),
    ]  # fmt: skip


def test_parameters_and_shapes() -> None:
    model = ResNet()
    assert sum(p.numel() for p in model.parameters()) == 4_827_365
    assert all(p.requires_grad for p in model.parameters())
    seen: list[tuple[int, ...]] = []
    model.features.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    logits = model(torch.zeros(2, 200, 200, 3, dtype=torch.uint8))
    assert seen == [(2, 3, 200, 200), (2, 40_000)]
    assert logits.shape == (2,)


def test_channels_and_scale_are_read_as_written() -> None:
    model = ResNet().eval()
    views = torch.from_numpy(np.stack([draw(1, True)[:200, :200], draw(2, False)[:200, :200]]))
    by_hand = torch.stack([view.permute(2, 0, 1) for view in views]).float() / 255
    with torch.inference_mode():
        wanted = model.classifier(model.features(by_hand).flatten(1)).squeeze(1)
        assert torch.allclose(model(views), wanted, atol=1e-6)
        assert not torch.allclose(model(views.flip(3)), wanted, atol=1e-4)  # BGR is not RGB


def test_recipe_says_rmsprop_and_the_loop_bce() -> None:
    assert BASE.data.size_px == 200
    assert BASE.optimizer.name == "rmsprop"
    assert BASE.init == "scratch"
    assert BASE.run.label_smoothing == 0
    optimizer = make_optimizer(ResNet(), BASE)
    assert type(optimizer) is torch.optim.RMSprop
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == 4_827_365
    # The function of nn.BCEWithLogitsLoss.
    assert "binary_cross_entropy_with_logits" in inspect.getsource(loop)


def test_what_the_network_cannot_do_is_told() -> None:
    def recipe(*overrides: str) -> Recipe:
        return config.read(Recipe, ARCHITECTURE.recipes["base"], overrides)

    with pytest.raises(ConfigError, match=r"data\.size_px is 160; this network takes 200"):
        ARCHITECTURE.build(recipe("data.size_px=160"))
    with pytest.raises(ConfigError, match="no ImageNet weights for resnet"):
        ARCHITECTURE.build(recipe("init=imagenet"))
    with pytest.raises(TrainingError, match=r"There is no checkpoint none\.pt"):
        ARCHITECTURE.build(recipe("init=none.pt"))


def test_starts_from_a_checkpoints_average(tmp_path: Path) -> None:
    model = ResNet()
    save_average(model.state_dict(), tmp_path / "a.pt")
    recipe = config.read(Recipe, ARCHITECTURE.recipes["base"], [f"init={tmp_path / 'a.pt'}"])
    started = ARCHITECTURE.build(recipe)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(started.state_dict()[name], value, rtol=2**-10, atol=1e-6)  # fp16
    state = read_state(str(tmp_path / "a.pt"))
    lost = state.pop("classifier.0.bias")
    with pytest.raises(TrainingError, match=r"lacks 'classifier\.0\.bias'"):
        fill(model, state, "a.pt")
    with pytest.raises(TrainingError, match=r"'classifier\.0\.bias' is \(7,\), the network's is \(120,\)"):
        fill(model, state | {"classifier.0.bias": lost[:7]}, "a.pt")
    (tmp_path / "b.pt").write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match=r"b\.pt cannot be read"):
        read_state(str(tmp_path / "b.pt"))


def test_averages_the_weights_of_several_checkpoints() -> None:
    a, b = ResNet(), ResNet()
    states = [{"average": a.state_dict(), "model": None}, {"average": None, "model": b.state_dict()}]
    kept = a.state_dict()["classifier.0.bias"].clone()
    mean = average_of(states, ["a", "b"])
    for name, value in mean.items():
        torch.testing.assert_close(value, (a.state_dict()[name] + b.state_dict()[name]) / 2)
    assert torch.equal(a.state_dict()["classifier.0.bias"], kept), "the checkpoint itself was changed"
    states[1]["model"] = {**b.state_dict(), "classifier.0.bias": torch.zeros(7)}
    with pytest.raises(TrainingError, match=r"b holds another network than a: 'classifier\.0\.bias' differs"):
        average_of(states, ["a", "b"])


def test_onnx_gives_the_logits_of_pytorch(tmp_path: Path) -> None:
    import onnxruntime as ort

    model = ResNet()
    with torch.no_grad():
        model.classifier[4].weight.mul_(40)  # initial logits hardly vary: make a difference visible
    shipped = shipped_form(model)
    assert export(shipped, ["logit"], (200,), tmp_path / "model.onnx") <= 1e-4
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("views", "tensor(uint8)", ["B", 200, 200, 3])
    ]
    views = np.stack([draw(seed, bool(seed % 2))[:200, :200] for seed in range(5)])
    for batch in (views, views[:1]):
        got = session.run(["logit"], {"views": batch})[0]
        with torch.inference_mode():
            wanted = shipped(torch.from_numpy(batch)).numpy()
            original = model.eval()(torch.from_numpy(batch)).numpy()
        assert np.abs(got - wanted).max() <= 1e-4
        assert np.abs(got - original).max() < 0.02  # fp16 kernels
    assert np.ptp(session.run(["logit"], {"views": views})[0]) > 0.01
    data = (tmp_path / "model.onnx").read_bytes()
    assert len(data) < 4_827_365 * 2 * 1.02, "stored as fp16"
    assert b"/mai/" not in data, "no path of the machine that exported"
