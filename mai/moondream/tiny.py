"""A tiny Moondream with random weights and a tokenizer of its own: to try every road on, without a hub.

It knows nothing: captions are random words. All that it makes says so (`note`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mai.errors import require

NOTE = "random weights, for trying the road only"
SIZES: dict[str, dict[str, Any]] = {
    "vision": {
        "n_layers": 2, "dim": 32, "ff_dim": 48, "n_heads": 2, "crop_px": 84, "max_crops": 2, "overlap_patches": 1,
        "proj_dim": 64,
    },
    "text": {
        "n_layers": 2, "dim": 64, "ff_dim": 96, "n_heads": 2, "vocab": 33000, "context": 512,
    },
}  # fmt: skip
"""33,000 tokens, so that the templates of the real tokenizer are ids here too."""

WORDS = [
    "a",
    "the",
    "of",
    "in",
    "on",
    "with",
    "and",
    "one",
    "two",
    "red",
    "green",
    "blue",
    "small",
    "large",
    "old",
    "new",
    "photograph",
    "picture",
    "painting",
    "drawing",
    "person",
    "dog",
    "cat",
    "house",
    "tree",
    "street",
    "table",
    "window",
    "sky",
    "water",
    "light",
    "is",
    "this",
    "image",
    "ai",
    "generated",
    "what",
    "it",
    "Is",
    "AI",
    "image",
    "Yes",
    "No",
    "yes",
    "no",
]


def tokenizer() -> Any:
    """A word-level tokenizer with the ids that the templates need; unknown words become single characters."""
    tokenizers = require("tokenizers", "vlm", "A tiny Moondream")
    characters = [chr(c) for c in range(33, 127)]
    listed = [*(f"<{i}>" for i in range(1, 10)), "Ġ", *WORDS, *(f"Ġ{w}" for w in WORDS), *characters]
    known = ["<eos>", *dict.fromkeys([*listed, *(f"Ġ{c}" for c in characters)])]
    model = tokenizers.models.BPE(
        vocab={word: i for i, word in enumerate(known)}, merges=[], unk_token="<1>", ignore_merges=True
    )
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(r" ?[A-Za-z]+| ?[^\sA-Za-z]+|\s+"), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    return made


def build(folder: Path, seed: int = 0, sizes: dict[str, dict[str, Any]] | None = None) -> Path:
    """Write a tiny model's folder, to be read by `mai.moondream.load.load`.

    Args:
        folder: made if it is not there.
        seed: of the random weights.
        sizes: other sizes, as SIZES.

    Returns:
        The folder.
    """
    torch = require("torch", "vlm", "A tiny Moondream")
    safetensors = require("safetensors.torch", "vlm", "A tiny Moondream")
    from mai.moondream.load import config_of
    from mai.moondream.model import Moondream

    sizes = sizes or SIZES
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = Moondream(config_of(sizes))
    with torch.no_grad():
        model.text.wte.normal_(std=0.3)
        model.vision.pos_emb.normal_(std=0.1)
    torch.random.set_rng_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    safetensors.save_file(tensors, folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "mai.json").write_text(
        json.dumps({"config": sizes, "note": NOTE, "seed": seed}, indent=1), "utf-8"
    )
    return folder
