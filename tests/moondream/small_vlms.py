"""Tiny vision-language models of transformers with their image processors (Pillow) and tokenizers, made in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_TEXT = {"vocab_size": 420, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
_ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
_QWEN_IDS = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 3, "vision_end_token_id": 4}
_BART = {"model_type": "bart", "vocab_size": 420, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
         "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
         "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "decoder_start_token_id": 2}  # fmt: skip
_OPT = {"model_type": "opt", "vocab_size": 420, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "word_embed_proj_dim": 32, "pad_token_id": 0, "bos_token_id": 2,
        "eos_token_id": 1}  # fmt: skip
_SMALL_VIT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}

CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        **_QWEN_IDS,
        "text_config": {**_TEXT, "rope_parameters": _ROPE},
        "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2,
                          "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
    },
    "qwen3_vl": {
        **_QWEN_IDS,
        "text_config": {**_TEXT, "head_dim": 16, "rope_parameters": _ROPE},
        "vision_config": {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 14,
                          "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64,
                          "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
    },
    "internvl": {
        "image_token_id": 5,
        "image_seq_length": 4,
        "text_config": {"model_type": "qwen2", **_TEXT},
        "vision_config": {**_SMALL_VIT, "image_size": [56, 56], "patch_size": [14, 14]},
    },
    "florence2": {
        "image_token_id": 3,
        "text_config": _BART,
        "vision_config": {"embed_dim": [8, 16, 32, 32], "num_heads": [1, 2, 2, 2], "num_groups": [1, 2, 2, 2],
                          "depths": [1, 1, 1, 1], "window_size": 4, "projection_dim": 32, "drop_path_rate": 0.0},
    },
    "blip-2": {
        "image_token_index": 3,
        "num_query_tokens": 4,
        "vision_config": {**_SMALL_VIT, "image_size": 56, "patch_size": 14},
        "qformer_config": {**_SMALL_VIT, "encoder_hidden_size": 32, "vocab_size": 420,
                           "cross_attention_frequency": 2},
        "text_config": _OPT,
    },
}  # fmt: skip
_QWEN_WORDS = [
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|im_start|>",
    "<|im_end|>",
]
_WORDS = {"qwen2_vl": _QWEN_WORDS, "qwen3_vl": _QWEN_WORDS, "internvl": ["<img>", "</img>", "<IMG_CONTEXT>"],
          "florence2": ["<image>"], "blip-2": ["<image>"]}  # fmt: skip
SIDES = {"florence2": 64}
"""Side of the square where it is not 56 px."""


def build(folder: Path, kind: str) -> Path:
    """Write one as `save_pretrained` does."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, **CONFIGS[kind]))
    if (
        kind == "blip-2"
    ):  # random weights that let a picture through; its query tokens are zeros before training
        with torch.no_grad():
            torch.nn.init.normal_(model.query_tokens, std=0.5)
            for parameter in model.parameters():
                parameter.mul_({2: 4, 4: 200}.get(parameter.ndim, 1))
    model.save_pretrained(folder)
    _processor(kind, SIDES.get(kind, 56)).save_pretrained(folder)
    _tokenizer(["<pad>", "<eos>", "<bos>", *_WORDS[kind]]).save_pretrained(folder)
    return folder


def _processor(kind: str, side: int) -> Any:
    import transformers as t

    size = {"height": side, "width": side}
    if kind in ("qwen2_vl", "qwen3_vl"):
        return t.Qwen2VLImageProcessorPil(min_pixels=side * side, max_pixels=side * side)
    if kind == "internvl":
        return t.GotOcr2ImageProcessorPil(size=size, crop_to_patches=False)
    if kind == "florence2":
        return t.CLIPImageProcessorPil(size=size, crop_size=size)
    return t.BlipImageProcessorPil(size=size)


def _tokenizer(special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(
        ["Is this image AI-generated? Yes. No. Question: Answer: user assistant"] * 10, trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>"
    )
