"""Weights that a run learns from beside the labels: their scores, and their map of patch logits.

An ensemble costs as many networks as it has; one network taught by it keeps most of what they know together (Hinton et
al., Distilling the knowledge in a neural network, arXiv 1503.02531; with the same augmented view for both, as Beyer et
al., Knowledge distillation: a good teacher is patient and consistent, arXiv 2106.05237). The teacher runs as `mai scan`
runs it, by onnxruntime, so whatever was exported or ships can teach.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mai import weights as weights_on_disk
from mai.errors import TrainingError
from mai.training.job import Job
from mai.training.recipe import TeacherPlan
from mai.weights.session import open_session

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


class Teacher:
    """See the head of this module.

    Args:
        plan: which weights, and what is learned from them.
        n_threads: of one run.

    Attributes:
        digest: of the weights' config.json; a resumed run must have the same teacher.

    Raises:
        UnknownNameError, WeightsError: there are no such weights, or they cannot be read.
        TrainingError: `patches` is asked of weights without a map.
    """

    def __init__(self, plan: TeacherPlan, n_threads: int) -> None:
        weights = weights_on_disk.load(plan.weights)
        self.plan, self.digest = plan, weights.config_digest
        self._calibration = weights.calibration
        self._session = open_session(weights, n_threads)
        if plan.patches and "patches" not in self._session.outputs:
            raise TrainingError(
                f"teacher.patches: {weights.name} has no map of patch logits to learn from. Set teacher.patches=0, or "
                "take a teacher with a map."
            )

    def loss(self, model: torch.nn.Module, views: Tensor, targets: Tensor) -> Tensor:
        """The loss of one batch, with its gradient.

        Args:
            model: the network that learns; with `patches` it takes `with_patches=True`.
            views: uint8 RGB (B, S, S, 3) on the network's device.
            targets: float32 (B,), 0..1.

        Returns:
            Cross entropy against targets and teacher's scores, plus the squared difference of the maps; a scalar.
        """
        import torch
        from torch.nn import functional

        logits, patches = self._ask(views)
        fit = self._calibration
        soft = torch.sigmoid(torch.from_numpy(logits) * fit.slope + fit.offset).to(views.device)
        share = self.plan.share
        mixed = (1 - share) * targets + share * soft
        if not self.plan.patches or patches is None:
            return functional.binary_cross_entropy_with_logits(model(views).float(), mixed)
        learned, places = model(views, with_patches=True)
        wanted = (torch.from_numpy(patches) * fit.slope + fit.offset).to(views.device)
        if wanted.shape != places.shape:
            raise TrainingError(
                f"teacher.patches: {self.plan.weights} has a map of {tuple(wanted.shape[1:])} places where the "
                f"network that learns has {tuple(places.shape[1:])}. Set teacher.patches=0, or give both the same "
                "views (data.size_px, data.whole_px)."
            )
        entropy = functional.binary_cross_entropy_with_logits(learned.float(), mixed)
        return entropy + self.plan.patches * functional.mse_loss(places.float(), wanted)

    def _ask(self, views: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The teacher's logits and its map.

        Raises:
            TrainingError: its network does not take views of this size.
        """
        try:
            return self._session.run(views.cpu().numpy())
        except Exception as error:  # onnxruntime's are of no common kind
            raise TrainingError(
                f"teacher.weights: {self.plan.weights} cannot look at views of {views.shape[1]} px "
                f"({type(error).__name__}). Set data.size_px and data.whole_px to a size that its network takes."
            ) from error


def teacher_of(job: Job, model: torch.nn.Module, state: Mapping[str, Any] | None) -> Teacher | None:
    """The teacher that a run's recipe names, or None.

    Args:
        job: the run.
        model: the network that learns.
        state: the checkpoint that the run goes on from, if it does.

    Raises:
        TrainingError: the network gives no map to compare; another teacher taught the run before.
        UnknownNameError, WeightsError: as of Teacher.
    """
    import torch

    plan = job.recipe.teacher
    if not plan.weights:
        return None
    if plan.patches and "with_patches" not in inspect.signature(model.forward).parameters:
        raise TrainingError(
            f"teacher.patches: '{job.recipe.architecture}' gives no map while it learns. Set teacher.patches=0."
        )
    teacher = Teacher(plan, torch.get_num_threads())
    if state and state.get("teacher") != teacher.digest:
        raise TrainingError(
            f"The weights {plan.weights} are not those that taught {job.output} before. "
            "Give the same ones, or choose another --output."
        )
    return teacher
