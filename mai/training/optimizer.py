"""The recipe's optimizer and its learning rate over a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from mai.training.recipe import OptimizerPlan

if TYPE_CHECKING:
    import torch


class Recipe(Protocol):
    """Any recipe with a table `optimizer`."""

    @property
    def optimizer(self) -> OptimizerPlan:
        """How the weights move."""
        ...


def make_optimizer(model: torch.nn.Module, recipe: Recipe) -> Any:
    """The recipe's optimizer; biases, norms and other vectors are not decayed."""
    import torch

    plan = recipe.optimizer
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if plan.name == "adamw":  # fused: one pass over the weights in place of ten
        return torch.optim.AdamW(groups, lr=plan.lr, fused=True)
    return torch.optim.RMSprop(groups, lr=plan.lr)


def rate_at(done: float, recipe: Recipe) -> float:
    """Learning rate as a share of the highest, at `done` (0..1) of all steps: linear warm-up, then cosine."""
    plan = recipe.optimizer
    if done < plan.warmup:
        return max(done / plan.warmup, 0.01)
    rest = (done - plan.warmup) / max(1e-9, 1 - plan.warmup)
    return plan.final + (1 - plan.final) * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))
