"""Tiny transformers models with random weights and their PIL image processors, saved as `save_pretrained` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SIZE = 32
KINDS = ("vit", "swin", "convnext", "siglip", "clip", "dinov2", "dinov3")


def config(kind: str, labels: dict[int, str]) -> Any:
    """A configuration of a few thousand parameters."""
    import transformers as t

    told: dict[str, Any] = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}}
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    square = {"image_size": SIZE, "patch_size": 8}
    if kind == "vit":
        return t.ViTConfig(**small, **square, **told)
    if kind == "swin":
        return t.SwinConfig(
            image_size=SIZE, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, **told
        )
    if kind == "convnext":
        return t.ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], image_size=SIZE, **told)
    if kind == "dinov2":
        return t.Dinov2Config(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, **square, **told
        )
    if kind == "dinov3":
        return t.DINOv3ViTConfig(**small, **square, num_register_tokens=2, **told)
    tower = {**small, **square}
    text = {**small, "vocab_size": 40, "max_position_embeddings": 8}
    if kind == "siglip":
        return t.SiglipConfig(vision_config=tower, text_config=text, **told)
    return t.CLIPConfig(vision_config={**tower, "projection_dim": 8}, text_config=text, **told)


def processor(kind: str) -> Any:
    """Its image processor, the one without torchvision."""
    import transformers as t

    names = {
        "vit": "ViTImageProcessorPil", "swin": "ViTImageProcessorPil", "convnext": "ConvNextImageProcessorPil",
        "siglip": "SiglipImageProcessorPil", "clip": "CLIPImageProcessorPil", "dinov2": "BitImageProcessorPil",
        "dinov3": "ViTImageProcessorPil",
    }  # fmt: skip
    size = (
        {"shortest_edge": SIZE} if kind in ("convnext", "clip", "dinov2") else {"height": SIZE, "width": SIZE}
    )
    more = {"crop_size": {"height": SIZE, "width": SIZE}} if kind in ("clip", "dinov2") else {}
    return getattr(t, names[kind])(size=size, **more)


def save(
    folder: Path, kind: str, *, labels: tuple[str, ...] = ("real", "fake"), head: bool = True, seed: int = 0
) -> Path:
    """Write a classifier (or, without a head, a backbone) with its processor."""
    import torch
    import transformers as t

    torch.manual_seed(seed)
    made = config(kind, dict(enumerate(labels)))
    cls = t.AutoModelForImageClassification if head else t.AutoModel
    cls.from_config(made).eval().save_pretrained(folder)
    processor(kind).save_pretrained(folder)
    assert json.loads((folder / "preprocessor_config.json").read_text())
    return folder
