"""A model as training and scoring see it, whatever is behind it: square views in, a loss and a raw score out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from mai.errors import UsageError, require
from mai.moondream.chat import padded, sides_of
from mai.moondream.crops import crops_of, normalised, tiling_of
from mai.moondream.revisions import OWN

if TYPE_CHECKING:
    from mai.moondream.load import Base
    from mai.moondream.model import Moondream
    from mai.moondream.recipe import SamplePlan
    from mai.types import Pixels


class Student(nn.Module):
    """What the training loop and the detector need of a back end."""

    model: nn.Module

    @property
    def adapted(self) -> Any:
        """The peft.PeftModel around `model`; None where it has no adapter."""
        return self.__dict__.get("_adapted")

    def adapt(self, adapted: Any) -> None:
        """Keep the peft.PeftModel around `model`, but not as a part: its tensors are `model`'s own."""
        self.__dict__["_adapted"] = adapted

    def save_whole(self, folder: Path, half: bool) -> None:
        """Write all weights and what belongs to them into an adapter folder; half: matrices in fp16."""
        raise NotImplementedError

    def save_merged(self, folder: Path, dtype: torch.dtype, note: str) -> None:
        """Write the model with its adapter's products added to the weights, as a base of its own."""
        raise NotImplementedError

    def collate(self, views: Sequence[Pixels], labels: Sequence[int]) -> dict[str, Any]:
        """Views uint8 RGB (S, S, 3) of one size and labels (1 synthetic) -> keyword arguments of `forward`."""
        raise NotImplementedError

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """Mean loss over the answer's tokens, and raw scores (B,) at its first token."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

    def score(self, views: NDArray[np.uint8], at_once: int = 32, bf16: bool = False) -> NDArray[np.float64]:
        """Raw scores float64 (B,) of views uint8 (B, S, S, 3), in evaluation mode."""
        was_training, out = self.training, []
        self.eval()
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            for start in range(0, len(views), at_once):
                part = list(views[start : start + at_once])
                inputs = on_device(self.collate(part, [0] * len(part)), self.device)
                out.append(self(**inputs)[1].double().cpu().numpy())
        self.train(was_training)
        return np.concatenate(out) if out else np.empty(0)

    def checkpointing(self, on: bool) -> None:
        """Recompute activations in the backward pass."""
        raise NotImplementedError


def on_device(inputs: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The same with tensors moved."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in inputs.items()}


def answer_loss(logits: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
    """Mean cross-entropy over the tokens that count.

    Args:
        logits: (B, T, vocab).
        targets: (B, T).
        counts: bool (B, T).
    """
    return F.cross_entropy(logits[counts].float(), targets[counts])


class MoondreamStudent(Student):
    """Our Moondream.

    Args:
        base: model, tokenizer, templates.
        plan: question and answers.

    Raises:
        UsageError: the two answers begin alike, or the prompt is longer than what the model reads.
        WeightsError: the tokenizer does not tell Yes from No.
    """

    model: Moondream

    def __init__(self, base: Base, plan: SamplePlan) -> None:
        super().__init__()
        self.base, self.model = base, base.model
        self.yes, self.no = sides_of(base)
        templates = base.revision.templates
        before, after = templates.question
        encode = base.tokenizer.encode
        self.prompt = [*before, *encode(plan.question, add_special_tokens=False).ids, *after]
        self.answers = [
            [*encode(text, add_special_tokens=False).ids, templates.eos] for text in (plan.no, plan.yes)
        ]
        if self.answers[0][0] == self.answers[1][0]:
            raise UsageError(f"The answers '{plan.yes}' and '{plan.no}' begin with the same token.")
        if self.answers[1][0] not in self.yes or self.answers[0][0] not in self.no:
            # Other answers than Yes and No: the score is between their first tokens.
            self.yes, self.no = [self.answers[1][0]], [self.answers[0][0]]
        longest = len(self.prompt) + max(map(len, self.answers))
        if self.model.n_prefix + longest > self.model.config.text.context:
            raise UsageError(
                f"The question has {len(self.prompt)} tokens; with the picture that is more than the "
                f"{self.model.config.text.context} that the model reads. Shorten data.question."
            )

    def collate(self, views: Sequence[Pixels], labels: Sequence[int]) -> dict[str, Any]:
        """See Student."""
        vision = self.model.config.vision
        height, width = views[0].shape[:2]
        tiling = tiling_of(height, width, vision)
        used = 1 if tiling == (1, 1) else None  # one tile is the global view again
        crops = np.stack([normalised(crops_of(view, vision)[0][:used]) for view in views])
        words, lengths = padded(
            [[*self.prompt, *self.answers[label]] for label in labels], torch.device("cpu")
        )
        return {"crops": torch.from_numpy(crops), "tiling": tiling, "words": words, "lengths": lengths}

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """See Student."""
        crops, words, lengths = inputs["crops"], inputs["words"], inputs["lengths"]
        vision, n = self.model.vision, len(self.prompt)
        trains_vision = any(p.requires_grad for p in vision.parameters())
        with torch.set_grad_enabled(trains_vision and torch.is_grad_enabled()):
            flat = crops.flatten(0, 1).to(vision.pos_emb.dtype)
            tokens = vision.tokens(flat)
            tokens = tokens.view(*crops.shape[:2], *tokens.shape[1:])
            features = vision.project(tokens, inputs["tiling"])
        hidden = self.model.read(features, words, lengths, self.base.revision.templates.bos)
        logits = self.model.text.logits(hidden[:, n:-1])  # row i predicts word i
        first = logits[:, 0].float()
        raw = first[:, self.yes].logsumexp(-1) - first[:, self.no].logsumexp(-1)
        order = torch.arange(n, words.shape[1], device=words.device)
        return answer_loss(logits, words[:, n:], order[None] < lengths[:, None]), raw

    def save_whole(self, folder: Path, half: bool) -> None:
        """See Student."""
        state = self.model.state_dict()
        self._write(
            folder, {n: v.half() if half and v.ndim > 1 else v for n, v in state.items()}, self.base.note
        )

    def save_merged(self, folder: Path, dtype: torch.dtype, note: str) -> None:
        """See Student."""
        merged = self.adapted.merge_and_unload()
        state = {name: value.to(dtype) for name, value in merged.state_dict().items()}
        self._write(folder, state, f"{self.base.note}; {note}" if self.base.note else note)

    def _write(self, folder: Path, state: Mapping[str, Tensor], note: str) -> None:
        safetensors = require("safetensors.torch", "vlm", "Writing a model")
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{name}": value.detach().cpu().contiguous() for name, value in state.items()}
        safetensors.save_file(tensors, folder / "model.safetensors")
        told: dict[str, Any] = {"config": asdict(self.model.config), "note": note}
        if self.base.revision.name == OWN:
            told["templates"] = self.base.revision.templates.to_dict()
        (folder / "mai.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
        if self.base.tokenizer_file is not None:
            shutil.copyfile(self.base.tokenizer_file, folder / "tokenizer.json")

    def checkpointing(self, on: bool) -> None:
        """See Student."""
        self.model.text.gradient_checkpointing = on
        self.model.vision.gradient_checkpointing = on
