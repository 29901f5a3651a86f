"""A small model of this architecture from random weights, with a tokenizer of its own: to be trained whole.

It proves the road from labelled pictures to a verdict where Moondream's weights are out of reach; it is not Moondream.
Random, but for the first layer, whose rows are the cosines of a patch (as in JPEG), each divided by how strongly
natural pictures have it: raw pixels drown the fine traces of a picture's making in its brightness, and a vision
transformer needs more pictures than there are to learn that by itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai.errors import require
from mai.moondream.revisions import NO_VARIANTS, QUESTION, YES_VARIANTS, Templates

if TYPE_CHECKING:
    from mai.moondream.model import Moondream, MoondreamConfig

NOTE = "a small model trained by MAI from random weights, a proof of the road; it is not Moondream"
TEMPLATES = Templates(
    question=((1, 4, 2), (3, 3)),
    caption={"short": (1, 5, 2, 6, 3), "normal": (1, 5, 2, 7, 3), "long": (1, 5, 2, 8, 3)},
)
SPECIAL = ("<end>", "<task>", "</task>", "<answer>", "<query>", "<caption>", "<short>", "<normal>", "<long>")
"""Tokens 0..8, which TEMPLATES speak of."""

LUMA = (0.299, 0.587, 0.114)
BLUE, RED = (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081)
"""RGB -> Y, Cb, Cr (ITU-R BT.601), as in JPEG."""

STRENGTH = {"luma": (4.2, 0.82, -1.43), "chroma": (1.2, 0.164, -1.68)}
"""Standard deviation of the cosine coefficients of 8 x 8 patches with values -1..1: of the mean; and c and a of
c * r^a, r the distance of a frequency from 0. Fitted to 288 training views of the corpus, 160 px (docs/log.md)."""


def tokenizer(texts: Sequence[str] = (), vocab: int = 300) -> Any:
    """A byte-level BPE tokenizer trained here on the question, the answers and `texts`."""
    tokenizers = require("tokenizers", "vlm", "A model from scratch")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([QUESTION, *YES_VARIANTS, *NO_VARIANTS, *texts] * 20, trainer)
    return made


def build(folder: Path, config: MoondreamConfig, seed: int, texts: Sequence[str] = ()) -> Path:
    """Write a model from scratch as a folder that `mai.moondream.load.load` reads.

    Args:
        folder: made if it is not there.
        config: sizes.
        seed: of the random weights.
        texts: more text for the tokenizer, e.g. the recipe's question.
    """
    torch = require("torch", "vlm", "A model from scratch")
    safetensors = require("safetensors.torch", "vlm", "A model from scratch")
    from mai.moondream.model import Moondream

    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = Moondream(config)
    initialise(model)
    torch.random.set_rng_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    safetensors.save_file(tensors, folder / "model.safetensors")
    tokenizer(texts, min(300, config.text.vocab)).save(str(folder / "tokenizer.json"))
    told = {"config": asdict(config), "note": NOTE, "seed": seed, "templates": TEMPLATES.to_dict()}
    (folder / "mai.json").write_text(json.dumps(told, indent=1), "utf-8")
    return folder


def initialise(model: Moondream) -> None:
    """Random weights in place, the patch layer from cosines."""
    import torch

    depth = len(model.vision.blocks) + len(model.text.blocks)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim > 1:  # the gains of norms stay 1
                into_stream = name.endswith(("attn.proj.weight", "mlp.fc2.weight"))
                parameter.normal_(std=0.02 / math.sqrt(2 * depth) if into_stream else 0.02)
        for layer in (model.vision.proj_mlp.fc1, model.vision.proj_mlp.fc2):
            torch.nn.init.xavier_uniform_(layer.weight)
        rows = torch.from_numpy(cosine_rows(model.config.vision.patch_px, model.config.vision.dim)).float()
        model.vision.patch_emb.weight[: len(rows)] = rows
        # The norm before a block divides by a token's strength; beside something constant the strength stays readable.
        model.vision.patch_emb.bias.normal_(std=0.5)


def cosine_rows(patch_px: int, n: int) -> NDArray[np.float64]:
    """At most n rows (., 3 * patch_px^2) over a patch's values in the order channel, y, x.

    All frequencies of the luma, then the lower ones of the two chromas, as many as there is room for; each coefficient
    has a standard deviation of about one half on natural pictures.
    """
    k, x = np.arange(patch_px)[:, None], np.arange(patch_px)[None]
    one = np.cos(np.pi * (2 * x + 1) * k / (2 * patch_px)) * np.sqrt(2 / patch_px)
    one[0] /= np.sqrt(2)
    planes = np.einsum("ui,vj->uvij", one, one).reshape(patch_px**2, patch_px**2)
    radius = np.hypot(*np.divmod(np.arange(patch_px**2), patch_px))
    order = np.argsort(radius, kind="stable")
    n_luma = min(n, patch_px**2)
    n_chroma = min((n - n_luma) // 2, patch_px**2)
    rows = []
    for colour, kind, count in (
        (LUMA, "luma", n_luma),
        (BLUE, "chroma", n_chroma),
        (RED, "chroma", n_chroma),
    ):
        mean, c, a = STRENGTH[kind]
        for i in order[:count]:
            strength = mean if radius[i] == 0 else c * radius[i] ** a
            rows.append(np.kron(colour, planes[i]) * 0.5 / strength)
    return np.array(rows)
