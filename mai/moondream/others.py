"""Other small vision-language models, through transformers' AutoModelForImageTextToText and peft.

Qwen-VL, InternVL, Florence-2 and BLIP-2 (the paper's own set-up) are known by name; another one is tried with the form
`{image}` and the question a line below. transformers' processors want torchvision and a video part, which are not
needed here: the picture goes through the model's own image processor on Pillow, the words through its tokenizer, and
the image's places in the words are counted from what the model makes of a picture.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mai.errors import UsageError, require
from mai.moondream import lora
from mai.moondream.student import Student, answer_loss
from mai.training.hub import quiet, translated

if TYPE_CHECKING:
    from mai.moondream.recipe import SamplePlan, TuneRecipe
    from mai.types import Pixels

_CHAT = "<|im_start|>user\n{image}{question}<|im_end|>\n<|im_start|>assistant\n"
FORMS: Mapping[str, str] = {
    "qwen2_vl": _CHAT.replace("{image}", "<|vision_start|>{image}<|vision_end|>"),
    "qwen2_5_vl": _CHAT.replace("{image}", "<|vision_start|>{image}<|vision_end|>"),
    "qwen3_vl": _CHAT.replace("{image}", "<|vision_start|>{image}<|vision_end|>"),
    "internvl": _CHAT.replace("{image}", "<img>{image}</img>\n"),
    "florence2": "{image}{question}",
    "blip-2": "{image}Question: {question} Answer:",
}
"""Kind of model -> how a question about a picture is put to it (their processors and chat templates)."""
OTHER_FORM = "{image}\n{question}\n"

QK = ("q_proj", "k_proj", "query", "key")
ATTENTION = (*QK, "v_proj", "o_proj", "out_proj", "value", "qkv", "proj", "projection")
VISION = ("vision", "visual", "qformer", "projector", "language_projection", "connector")


class OtherStudent(Student):
    """A model of transformers.

    Args:
        model: an AutoModelForImageTextToText.
        processor: its image processor.
        tokenizer: its tokenizer.
        plan: size, question, answers.

    Raises:
        UsageError: the answers begin alike, or the model has no place for a picture.
    """

    def __init__(self, model: nn.Module, processor: Any, tokenizer: Any, plan: SamplePlan) -> None:
        super().__init__()
        self.model, self.processor, self.tokenizer = model, processor, tokenizer
        config: Any = model.config
        self.kind = str(config.model_type)
        self.is_two_part = bool(getattr(config, "is_encoder_decoder", False))
        image = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
        if image is None:
            raise UsageError(
                f"A model of kind '{self.kind}' names no image token; MAI does not know how to ask it."
            )
        form = FORMS.get(self.kind, OTHER_FORM)
        before, after = (self._ids(part.format(question=plan.question)) for part in form.split("{image}"))
        self.n_image = self._count(plan.size_px)
        self.image_id = int(image)
        start = (
            [tokenizer.bos_token_id]
            if self.kind in ("blip-2", "florence2") and tokenizer.bos_token_id
            else []
        )
        self.prompt = [*start, *before, *[self.image_id] * self.n_image, *after]
        lead = " " if self.kind == "blip-2" else ""
        end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        self.answers = [[*self._ids(lead + text), *end] for text in (plan.no, plan.yes)]
        self.yes, self.no = self.answers[1][0], self.answers[0][0]
        if self.yes == self.no:
            raise UsageError(f"The answers '{plan.yes}' and '{plan.no}' begin with the same token.")

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _pixels(self, views: Sequence[Pixels]) -> dict[str, Tensor]:
        return dict(self.processor(images=[np.ascontiguousarray(v) for v in views], return_tensors="pt"))

    @torch.inference_mode()
    def _count(self, size_px: int) -> int:
        """Places in the words that one picture of that size takes."""
        made = self._pixels([np.zeros((size_px, size_px, 3), np.uint8)])
        config: Any = self.model.config
        if "image_grid_thw" in made:
            return int(made["image_grid_thw"].prod()) // int(self.processor.merge_size) ** 2
        if hasattr(config, "num_query_tokens"):
            return int(config.num_query_tokens)
        device, kind = self.device, next(self.model.parameters()).dtype
        found = self.model.get_image_features(made["pixel_values"].to(device, kind))  # type: ignore[operator]
        found = getattr(found, "pooler_output", found)
        parts = found if isinstance(found, list | tuple) else [found]
        return sum(int(part.numel() // part.shape[-1]) for part in parts)

    def collate(self, views: Sequence[Pixels], labels: Sequence[int]) -> dict[str, Any]:
        """See Student."""
        longest = max(map(len, self.answers))
        pad = self.answers[0][-1]
        answers = torch.full((len(labels), longest), pad)
        counts = torch.zeros(len(labels), longest, dtype=torch.bool)
        for i, label in enumerate(labels):
            own = self.answers[label]
            answers[i, : len(own)] = torch.tensor(own)
            counts[i, : len(own)] = True
        return {**self._pixels(views), "answers": answers, "counts": counts}

    def forward(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """See Student."""
        answers, counts = inputs.pop("answers"), inputs.pop("counts")
        n, kind = len(answers), next(self.model.parameters()).dtype
        inputs = {k: v.to(kind) if v.is_floating_point() else v for k, v in inputs.items()}
        prompt = torch.tensor(self.prompt, device=answers.device)[None].expand(n, -1)
        if self.is_two_part:
            config: Any = self.model.config
            start = getattr(config, "text_config", config).decoder_start_token_id
            shifted = torch.cat([torch.full_like(answers[:, :1], int(start)), answers[:, :-1]], 1)
            out = self.model(input_ids=prompt, decoder_input_ids=shifted, **inputs)
            logits = out.logits
        else:
            words = torch.cat([prompt, answers], 1)
            told = torch.cat([torch.ones_like(prompt), counts.long()], 1)
            if "image_grid_thw" in inputs:
                inputs["mm_token_type_ids"] = (words == self.image_id).long()
            out = self.model(input_ids=words, attention_mask=told, use_cache=False, **inputs)
            logits = out.logits[:, len(self.prompt) - 1 : -1]
        first = logits[:, 0].float()
        return answer_loss(logits, answers, counts), first[:, self.yes] - first[:, self.no]

    def save_whole(self, folder: Path, half: bool) -> None:
        """See Student."""
        raise UsageError(
            "A model of transformers is tuned by adapters; choose a profile other than all-weights."
        )

    def save_merged(self, folder: Path, dtype: torch.dtype, note: str) -> None:
        """See Student."""
        self.adapted.merge_and_unload().to(dtype).save_pretrained(str(folder))
        self.processor.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))
        (folder / "mai.json").write_text(json.dumps({"note": note}) + "\n", "utf-8")

    def checkpointing(self, on: bool) -> None:
        """See Student."""
        if on:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]


def open_base(recipe: TuneRecipe, source: str, device: str) -> tuple[OtherStudent, str]:
    """The model without adapters, and the digest of its files.

    Raises:
        WeightsError: it cannot be had.
        UsageError: it is no model that answers about pictures.
    """
    transformers = require("transformers", "vlm", "A transformers model")
    revision = recipe.base.revision or None
    kind = torch.bfloat16 if device == "cuda" else torch.float32

    def read() -> tuple[Any, Any, Any]:
        auto = transformers.AutoModelForImageTextToText
        return (
            auto.from_pretrained(source, revision=revision, dtype=kind, trust_remote_code=False),
            transformers.AutoImageProcessor.from_pretrained(
                source, revision=revision, backend="pil", trust_remote_code=False
            ),
            transformers.AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False),
        )

    if not source:
        raise UsageError("base.back_end is transformers: name the model, base.source=FOLDER or ORG/NAME.")
    with quiet():
        model, processor, tokenizer = translated(read, source)
    _hold_size(processor, recipe.data.size_px, model)
    return OtherStudent(model.to(device), processor, tokenizer, recipe.data), _digest(source, revision, model)


def _hold_size(processor: Any, size_px: int, model: Any) -> None:
    """Processors that look at pictures in their own size take exactly the square that both classes become."""
    config = model.config
    if hasattr(processor, "min_pixels") or "qwen" in str(config.model_type):
        pixels = size_px * size_px
        processor.size = {"shortest_edge": pixels, "longest_edge": pixels}
        processor.min_pixels = processor.max_pixels = pixels
    if hasattr(processor, "crop_to_patches"):
        processor.crop_to_patches = False


def _digest(source: str, revision: str | None, model: Any) -> str:
    """Sha256 over a folder's weights, or over the commit that the hub gave."""
    folder = Path(source)
    digest = hashlib.sha256()
    if folder.is_dir():
        for path in sorted(
            [*folder.glob("*.safetensors"), *folder.glob("tokenizer*"), folder / "config.json"]
        ):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    else:
        commit = getattr(model.config, "_commit_hash", None) or revision or "main"
        digest.update(f"{source}@{commit}".encode())
    return digest.hexdigest()


def layers_of(model: nn.Module, profile: str) -> list[str]:
    """Names of the linear layers of a profile; the last layer, which makes logits, is never among them.

    Raises:
        UsageError: the profile is for our own module only.
    """
    if profile == "all-weights":
        raise UsageError(
            "all-weights is for models from scratch; choose text-qk, text-attention, text or vision."
        )
    found = []
    for name, module in model.named_modules():
        leaf = name.rpartition(".")[2]
        if not isinstance(module, nn.Linear) or leaf == "lm_head":
            continue
        in_text = not any(word in name for word in VISION)
        wanted = {"text-qk": in_text and leaf in QK, "text-attention": in_text and leaf in ATTENTION,
                  "text": in_text, "vision": True}  # fmt: skip
        if wanted[profile]:
            found.append(name)
    return found


def open_other(recipe: TuneRecipe) -> tuple[OtherStudent, dict[str, Any]]:
    """The model of a recipe with adapters on every layer that can train; those that cannot are left out by name.

    Raises:
        WeightsError, UsageError: see `open_base`.
        TrainingError: the profile fits no layer.
    """
    from mai.training.device import choose_device

    device = choose_device()
    student, digest = open_base(recipe, recipe.base.source, device)
    targets = layers_of(student.model, recipe.adapter.profile)
    left_out = dead_layers(student, targets, recipe)
    kept = [name for name in targets if name not in left_out]
    if left_out:
        print(f"left out, as no gradient reaches them: {', '.join(left_out)}", file=sys.stderr, flush=True)
    student.adapt(lora.attach(student.model, recipe.adapter, kept))
    facts = {
        "back_end": "transformers",
        "source": recipe.base.source,
        "revision": recipe.base.revision or "main",
        "fingerprint": digest,
        "files": {},
        "note": f"a {student.kind}" + (f"; left out: {', '.join(left_out)}" if left_out else ""),
    }
    return student, facts


def dead_layers(student: OtherStudent, targets: Sequence[str], recipe: TuneRecipe) -> list[str]:
    """Layers among `targets` whose adapters a backward pass on random pictures does not reach."""
    adapted = lora.attach(student.model, recipe.adapter, list(targets))
    rng = np.random.default_rng(0)
    side = recipe.data.size_px
    views = [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(2)]
    inputs = student.collate(views, [0, 1])

    def of_batch() -> Tensor:
        from mai.moondream.student import on_device

        loss: Tensor = student(**on_device(dict(inputs), student.device))[0]
        return loss

    student.train()
    dead = lora.without_gradient(student, of_batch)
    adapted.unload()
    return [name for name in targets if any(f"{name}.lora_" in tensor for tensor in dead)]
