"""An adapter folder at work, with the face of mai.weights.session.Session: square views in, one logit a view out.

config.json                      format mai.weights/1: calibration, thresholds, base, question, prior ...
adapter_model.safetensors        what was trained, and adapter_config.json, as peft writes them;
or model.safetensors             all weights of a small model, with tokenizer.json and mai.json
README.md                        the card
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mai import config as configuration
from mai.errors import WeightsError, require

if TYPE_CHECKING:
    from mai.moondream.recipe import TuneRecipe
    from mai.moondream.student import Student
    from mai.weights import Weights

BASE = "MAI_MOONDREAM_BASE"
"""Environment variable: the folder of the base model on this machine, in place of where the adapter was trained."""
ADAPTER, WHOLE = "adapter_model.safetensors", "model.safetensors"


def open_weights(weights: Weights, device: str, base: str = "") -> tuple[Student, TuneRecipe]:
    """The model of an adapter folder, in evaluation mode.

    Args:
        weights: of architecture moondream; its hash is checked.
        device: cpu, cuda or mps.
        base: folder of the base; the variable MAI_MOONDREAM_BASE, else what the adapter names, if empty.

    Raises:
        WeightsError: a file is missing or damaged, or the base is another than the adapter was trained on.
        MissingExtraError: a package of the extra `vlm` is missing.
    """
    require("torch", "vlm", f"The weights {weights.name}")
    peft = require("peft", "vlm", f"The weights {weights.name}")
    from mai.moondream.load import load
    from mai.moondream.recipe import TuneRecipe
    from mai.moondream.student import MoondreamStudent

    weights.model_bytes()  # checks the hash
    recipe = configuration.build(
        TuneRecipe, weights.config["trained"]["recipe"], where=f"{weights.name}: recipe"
    )
    told = weights.config["base"]
    is_whole = weights.model.name == WHOLE
    source = str(weights.folder) if is_whole else base or os.environ.get(BASE) or told["source"]
    student: Student
    if told["back_end"] == "transformers":
        from mai.moondream.others import open_base

        student, found = open_base(recipe, source, device)
    else:
        loaded = load(source, device=device, dtype="bf16" if device == "cuda" and not is_whole else "fp32")
        student, found = MoondreamStudent(loaded, recipe.data), loaded.fingerprint
    if not is_whole:
        if found != told["fingerprint"]:
            raise WeightsError(
                f"{weights.folder} is an adapter of another base: it was trained on {told['source']}, revision "
                f"{told['revision']} (files {told['fingerprint'][:12]}...); {source} is {found[:12]}... Give the right "
                f"one: {BASE}=FOLDER."
            )
        try:
            student.adapt(peft.PeftModel.from_pretrained(student.model, str(weights.folder)))
        except Exception as error:  # peft raises errors of many kinds
            raise WeightsError(f"{weights.folder} does not fit its base: {error}") from error
    return student.to(device).eval(), recipe


class TorchSession:
    """One adapter on its base, ready to run.

    Args:
        weights: see `open_weights`, which also says what is raised.
        n_threads: of one run, on a CPU.
    """

    outputs = ("logit",)

    def __init__(self, weights: Weights, n_threads: int = 1) -> None:
        torch = require("torch", "vlm", f"The weights {weights.name}")
        from mai.training.device import choose_device

        if n_threads > 1:
            torch.set_num_threads(n_threads)
        self.device = choose_device()
        try:
            self.student, _ = open_weights(weights, self.device)
        except torch.OutOfMemoryError as error:
            raise WeightsError(
                f"There is not enough memory on {self.device} for {weights.name}: close other programs, or "
                "merge the adapter into a base in bf16 (mai weights merge)."
            ) from error

    def run(self, views: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Logits float32 (B,) of uint8 views (B, S, S, 3); there is no map of patches."""
        return self.logits(views), None

    def logits(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 (B,) of uint8 views (B, S, S, 3)."""
        raw = self.student.score(views, bf16=self.device == "cuda")
        return raw.astype(np.float32)


def merge(weights: Weights, output: Path, base: str = "", dtype: str = "bf16") -> Path:
    """Write base and adapter as one model: safetensors in the official layout, tokenizer.json, mai.json.

    Args:
        weights: an adapter folder.
        output: folder to make.
        base: folder of the base, see `open_weights`.
        dtype: of the tensors written: fp32, bf16 or fp16.

    Raises:
        WeightsError: as `open_weights`; or there is no adapter to merge.
    """
    torch = require("torch", "vlm", "Merging")
    if weights.model.name == WHOLE:
        raise WeightsError(f"{weights.folder} holds a whole model already; there is no adapter to merge.")
    student, _ = open_weights(weights, "cpu", base)
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if dtype not in kinds:
        raise WeightsError(f"A precision is fp32, bf16 or fp16, not '{dtype}'.")
    student.save_merged(output, kinds[dtype], f"with the adapter {weights.name} merged in")
    return output
