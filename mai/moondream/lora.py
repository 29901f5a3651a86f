"""Adapters: which modules of a model get one, and the proof that each of them trains.

LoRA (Hu et al., arXiv 2106.09685) adds to a layer's output the product of two thin matrices:

    y = W x + (alpha / r) B A x        A (r, in) random, B (out, r) zero at first; only A and B train

Bi-LoRA (Keita et al., arXiv 2404.01959; code: Mamadou-Keita/VLM-DETECT) puts them on the queries and keys of a frozen
vision-language model. Moondream computes queries, keys and values by one layer, `qkv`, so the profile `text-qk` wraps
that and holds the values' rows of B at zero: queries and keys change, values do not. A is then shared by the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mai.errors import TrainingError, require

if TYPE_CHECKING:
    from mai.moondream.recipe import AdapterPlan

_TEXT_QKV = r"text\.blocks\.\d+\.attn\.qkv"
_TEXT_ATTENTION = r"text\.blocks\.\d+\.attn\.(qkv|proj)"
_TEXT = r"text\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))"
_VISION = r"vision\.(blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))|proj_mlp\.(fc1|fc2))"
PROFILES: Mapping[str, str] = {
    "text-qk": _TEXT_QKV,
    "text-attention": _TEXT_ATTENTION,
    "text": _TEXT,
    "vision": f"{_TEXT}|{_VISION}",
}
"""Name -> regular expression over the names of our module's layers; all of a name must match."""


def attach(model: nn.Module, plan: AdapterPlan, targets: str | list[str]) -> Any:
    """Put adapters into a model, in place; everything else is frozen.

    Args:
        model: ours, or one of transformers.
        plan: rank, scale, dropout.
        targets: regular expression, or names, of the layers.

    Returns:
        A peft.PeftModel around the same model.

    Raises:
        TrainingError: no layer of the model has such a name.
    """
    peft = require("peft", "vlm", "LoRA training")
    config = peft.LoraConfig(
        r=plan.r, lora_alpha=plan.alpha, lora_dropout=plan.dropout, target_modules=targets, bias="none"
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise TrainingError(f"The profile '{plan.profile}' fits no layer of this model: {error}") from error


def hold_values(model: nn.Module) -> int:
    """Keep the last third of every `qkv` adapter's B at zero: values stay as they are. Returns how many."""
    n = 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ".qkv.lora_B." in name:
            mask = torch.ones_like(parameter)
            mask[2 * len(parameter) // 3 :] = 0

            def keep(gradient: Tensor, mask: Tensor = mask) -> Tensor:
                return gradient * mask.to(gradient.device, gradient.dtype)

            parameter.register_hook(keep)  # type: ignore[no-untyped-call]
            n += 1
    return n


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of all that trains."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@contextmanager
def _stirred(parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Zero matrices (B at its start) filled with small random values for a moment: A's gradient is 0 while B is."""
    kept: dict[str, Tensor] = {}
    state = torch.random.get_rng_state()
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.ndim > 1 and not bool(parameter.any()):
                kept[name] = parameter.detach().clone()
                parameter.normal_(std=0.02)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                parameters[name].copy_(value)
        torch.random.set_rng_state(state)


def without_gradient(model: nn.Module, loss: Callable[[], Tensor]) -> list[str]:
    """Names of trainable tensors that a backward pass gives no gradient, or one of zeros only.

    Args:
        model: in training mode.
        loss: computes a loss of a batch that holds both answers.
    """
    parameters = trainable(model)
    with _stirred(parameters):
        for parameter in parameters.values():
            parameter.grad = None
        loss().backward()  # type: ignore[no-untyped-call]
        dead = [name for name, p in parameters.items() if p.grad is None or not bool(p.grad.any())]
        for parameter in parameters.values():
            parameter.grad = None
    return dead


def check_gradients(model: nn.Module, loss: Callable[[], Tensor], profile: str) -> None:
    """Refuse to train where a tensor cannot.

    Raises:
        TrainingError: names the tensors.
    """
    dead = without_gradient(model, loss)
    if dead:
        raise TrainingError(
            f"With the profile '{profile}', {len(dead)} of {len(trainable(model))} trainable tensors get no gradient: "
            f"{', '.join(dead[:8])}{' ...' if len(dead) > 8 else ''}. Choose a profile that leaves them out."
        )
