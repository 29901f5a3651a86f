"""Numbers of the reference -> how far ours lie from them: `mai doctor moondream --golden DIR`.

A folder holds `golden.json` (salt, cases) and `golden.npz`. Weights and pictures are made by a formula: for a parameter
named K, RandomState(crc32(salt + K)) standard normal * 0.05, plus 1 for the weights of norms; pictures are random 8 x 8
pixels enlarged. Per case k the arrays `k_vision` (image features [::27, :16]), `k_logits` (rows from two before the
first answer token to the end, every 257th column) and, where it is there, `k_first`; the JSON has the loss over the
answer. The sizes stand in GOLDEN, or in the JSON as `config`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage

from mai.errors import UsageError
from mai.moondream.crops import crops_of, normalised
from mai.moondream.load import config_of
from mai.moondream.model import Moondream
from mai.moondream.revisions import CURRENT

LIMIT = 1e-4
GOLDEN: dict[str, dict[str, Any]] = {
    "text": {"dim": 128, "ff_dim": 256, "n_layers": 2, "n_heads": 2, "vocab": 51200},
    "vision": {"n_layers": 27, "dim": 32, "ff_dim": 48, "n_heads": 2, "proj_dim": 64},
}
NORMS = ("ln", "ln1", "ln2", "post_ln")
FIRST_IDS = (5297, 2949, 13, 0, 3)
STEP_TOKENS, N_COLUMNS, STEP_VOCAB = 27, 16, 257


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one case is off: the largest absolute differences, NaN counts as infinite.

    Attributes:
        case: its name.
        vision: of image features.
        logits: of logits.
        loss: of the loss over the answer.
    """

    case: str
    vision: float
    logits: float
    loss: float

    @property
    def is_equal(self) -> bool:
        """All within LIMIT."""
        return max(self.vision, self.logits, self.loss) <= LIMIT


def model_of(salt: str, config: Mapping[str, Mapping[str, Any]]) -> Moondream:
    """The formula-made model, fp32."""
    model = Moondream(config_of(config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            rng = np.random.RandomState(zlib.crc32((salt + "model." + name).encode()))
            values = rng.standard_normal(tuple(parameter.shape)).astype("float32") * np.float32(0.05)
            owner, _, leaf = name.rpartition(".")
            if leaf == "weight" and owner.rpartition(".")[2] in NORMS:
                values = values + np.float32(1)
            parameter.copy_(torch.from_numpy(values))
    return model


def picture_of(case: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The formula-made picture, uint8 RGB (height, width, 3)."""
    small = np.random.RandomState(case["image_seed"]).randint(0, 256, (8, 8, 3)).astype("uint8")
    size = case["width"], case["height"]
    return np.asarray(PILImage.fromarray(small).resize(size, PILImage.Resampling.BICUBIC))


def check(folder: Path) -> list[Difference]:
    """Run every case of a folder.

    Raises:
        UsageError: it is no folder of that form.
    """
    try:
        told = json.loads((folder / "golden.json").read_text("utf-8"))
        arrays = np.load(folder / "golden.npz")
        cases = told["cases"]
        model = model_of(told["salt"], told.get("config", GOLDEN))
        return [_case(model, case, arrays, i) for i, case in enumerate(cases)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"'{folder}' holds no golden numbers that can be read: {error!r}") from error


@torch.inference_mode()
def _case(model: Moondream, case: Mapping[str, Any], arrays: Any, number: int) -> Difference:
    name = str(case.get("case", number))
    crops, tiling = crops_of(picture_of(case), model.config.vision)
    features = model.vision(torch.from_numpy(normalised(crops)), tiling)
    question, answer = list(case["question_ids"]), list(case["answer_ids"])
    words = torch.tensor([question + answer])
    bos = CURRENT.templates.bos
    logits = model(features[None], words, torch.tensor([words.shape[1]]), bos)[0].float()
    # logits[i] predicts word i, so the row of the whole sequence's position p - 1 + i.
    first = len(question)
    loss = torch.nn.functional.cross_entropy(logits[first : first + len(answer)], torch.tensor(answer))
    differences = [_off(logits[first - 1 :, ::STEP_VOCAB], arrays[f"{name}_logits"])]
    if f"{name}_first" in arrays:
        ids = list(case.get("first_ids", FIRST_IDS))
        differences.append(_off(logits[first, ids], arrays[f"{name}_first"]))
    vision = _off(features[::STEP_TOKENS, :N_COLUMNS], arrays[f"{name}_vision"])
    return Difference(name, vision, max(differences), _off(loss, np.float64(case["loss"])))


def _off(ours: torch.Tensor, theirs: Any) -> float:
    theirs = np.asarray(theirs, np.float64)
    mine = ours.numpy().astype(np.float64)
    if mine.shape != theirs.shape:
        raise ValueError(f"shapes differ: ours {mine.shape}, the golden ones {theirs.shape}")
    value = float(np.abs(mine - theirs).max())
    return value if np.isfinite(value) else float("inf")
