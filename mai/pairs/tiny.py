"""A tiny Stable Diffusion 3 pipeline with random weights, built from configs without a hub: to try every road on.

Its pictures are noise. Every row that it makes says so.
"""

from __future__ import annotations

from typing import Any

from mai.errors import require

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,'-!?"


def _tokenizers() -> tuple[Any, Any]:
    """A CLIP and a T5 tokenizer that know single characters."""
    transformers = require("transformers", "pairs", "The tiny generator")
    words = [*_LETTERS, *(f"{c}</w>" for c in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    clip = transformers.CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77
    )
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in _LETTERS)]
    t5 = transformers.T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=256)
    return clip, t5


def build(seed: int = 0) -> Any:
    """A StableDiffusion3Pipeline of about 0.1 M parameters, in eval mode, the same for a seed."""
    torch = require("torch", "pairs", "The tiny generator")
    diffusers = require("diffusers", "pairs", "The tiny generator")
    transformers = require("transformers", "pairs", "The tiny generator")
    clip, t5 = _tokenizers()
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        text = transformers.CLIPTextConfig(
            vocab_size=len(clip), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, projection_dim=16, bos_token_id=clip.bos_token_id,
            eos_token_id=clip.eos_token_id, pad_token_id=clip.pad_token_id,
        )  # fmt: skip
        encoders = [transformers.CLIPTextModelWithProjection(text) for _ in range(2)]
        t5_config = transformers.T5Config(
            vocab_size=len(t5), d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4
        )
        transformer = diffusers.SD3Transformer2DModel(
            sample_size=32, patch_size=1, in_channels=16, num_layers=2, attention_head_dim=8,
            num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=32,
            pooled_projection_dim=32, out_channels=16, pos_embed_max_size=32,
        )  # fmt: skip
        vae = diffusers.AutoencoderKL(
            in_channels=3, out_channels=3, latent_channels=16, block_out_channels=(8, 8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4, sample_size=64, shift_factor=0.06, scaling_factor=1.5,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip
        modules = {
            "transformer": transformer, "vae": vae, "text_encoder": encoders[0], "text_encoder_2": encoders[1],
            "text_encoder_3": transformers.T5EncoderModel(t5_config),
        }  # fmt: skip
    finally:
        torch.random.set_rng_state(state)
    for module in modules.values():
        module.eval()  # built from configs they are in train mode, and T5's dropout would break seeds
    return diffusers.StableDiffusion3Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        tokenizer=clip, tokenizer_2=clip, tokenizer_3=t5, image_encoder=None, feature_extractor=None,
        **modules,
    )  # fmt: skip
