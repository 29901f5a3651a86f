"""The quick training step gives the bits of PyTorch's layers: outputs, gradients, ties, and what is no number."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from mai.machine import sleep_while_waiting  # noqa: E402
from mai.resnet import model as network  # noqa: E402
from mai.resnet.quick import ConvPoolReLU  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def layers(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    convolved = torch.nn.functional.conv2d(x, weight, bias, padding=1)
    return torch.nn.functional.relu(torch.nn.functional.max_pool2d(convolved, 2))


def leaves(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> list[torch.Tensor]:
    made = (t.to(torch.bfloat16, copy=True).requires_grad_() for t in (x, weight, bias))
    return [
        t.detach().to(memory_format=torch.channels_last).requires_grad_() if t.ndim == 4 else t for t in made
    ]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("channels", [(3, 16), (16, 32), (1, 1)])
def test_outputs_and_gradients_are_those_of_the_layers(channels: tuple[int, int], ties: bool) -> None:
    inputs, outputs = channels
    x, weight, bias = torch.randn(3, inputs, 20, 12), torch.randn(outputs, inputs, 3, 3), torch.randn(outputs)
    if ties:  # few different values: most windows have several greatest ones, and many are all 0
        x, weight, bias = x.sign(), torch.zeros_like(weight), torch.zeros_like(bias)
        weight[:, :, 1, 1] = 1
    ours, theirs = leaves(x, weight, bias), leaves(x, weight, bias)
    out, wanted = ConvPoolReLU.apply(*ours), layers(*theirs)
    assert torch.equal(out, wanted)
    gradient = torch.randn(out.shape).to(torch.bfloat16)
    out.backward(gradient)
    wanted.backward(gradient)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.grad, other.grad)
    assert bool(ours[0].grad.any())


def train_step(quick: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    torch.manual_seed(0)
    model = network.ResNet().to(memory_format=torch.channels_last)
    seen: list[int] = []
    model.features.register_forward_pre_hook(lambda *_: seen.append(1))
    if not quick:
        monkeypatch.setattr(network, "is_quick", lambda *_: False)
    views = torch.randint(0, 256, (4, 200, 200, 3), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(views)
    logits.float().mul(torch.arange(4)).sum().backward()
    return logits.detach(), [p.grad for p in model.parameters()], len(seen)


def test_a_bf16_step_of_the_network_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, plain = train_step(True, monkeypatch), train_step(False, monkeypatch)
    assert (quick[2], plain[2]) == (0, 1), "the quick way was taken, and only then"
    assert torch.equal(quick[0], plain[0])
    for one, other in zip(quick[1], plain[1], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_weights_that_are_no_numbers_reach_the_loss(name: str) -> None:
    model = network.ResNet()
    with torch.no_grad():
        getattr(model.features[0], name)[0] = -torch.tensor(float("nan"))  # with the sign's bit
    with torch.autocast("cpu", torch.bfloat16):
        assert bool(model(torch.zeros(1, 200, 200, 3, dtype=torch.uint8)).isnan().all())


def test_threads_sleep_while_they_wait_unless_the_person_says_otherwise() -> None:
    for set_before, wanted in ({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"):
        surroundings = dict(set_before)
        sleep_while_waiting(surroundings)
        assert surroundings == {"OMP_WAIT_POLICY": wanted}


def test_mai_train_says_so_before_torch_is_loaded() -> None:
    code = (
        "import sys, os, mai.machine as m; was = m.sleep_while_waiting\n"
        "def seen(): print('torch' in sys.modules); was(); print(os.environ['OMP_WAIT_POLICY'])\n"
        "m.sleep_while_waiting = seen\n"
        "from mai.cli import main; sys.argv = ['mai', 'train', 'none', '--data', 'none']; main()"
    )
    bare = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "PASSIVE"], done.stderr
