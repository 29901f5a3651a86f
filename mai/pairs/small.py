"""`small64`: a diffusion model of 64 px, trained from scratch on a CPU in an hour. Its card says what it is worth.

A rectified flow in pixel space (Liu et al., arXiv 2209.03003): x_t = (1 - t) x_0 + t noise, the network says the
velocity noise - x_0, and Euler steps go from t = 1 to 0. Patches of 4 x 4 pixels become channels first, so that the
U-Net works at 16 x 16. The prompt is read as the words of `mai/pairs/words.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from mai.errors import WeightsError, require
from mai.pairs.generate import Made, Request
from mai.pairs.registry import FOLDER, Entry
from mai.pairs.words import WORDS, vector

if TYPE_CHECKING:
    from mai.types import Pixels

WEIGHTS = FOLDER / "small64.safetensors"
SIDE_PX = 64
PATCH_PX = 4
CHANNELS = (96, 128, 160)
SPREAD = 0.5
"""Standard deviation of pixels in -1..1: what the network sees is divided by it."""


class SmallFlow(nn.Module):
    """U-Net over patches, told the time and the words.

    Legend: B batch, C channels, H W pixels, K words.
    """

    def __init__(self) -> None:
        super().__init__()
        diffusers = require("diffusers", "pairs", "The generator small64")
        self.unet = diffusers.UNet2DModel(
            sample_size=SIDE_PX // PATCH_PX,
            in_channels=3 * PATCH_PX**2,
            out_channels=3 * PATCH_PX**2,
            layers_per_block=1,
            block_out_channels=CHANNELS,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=32,
            norm_num_groups=32,
            class_embed_type="identity",
        )
        self.words = nn.Linear(len(WORDS) + 1, CHANNELS[0] * 4)

    def forward(self, x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        """Velocity (B, 3, H, W) of x (B, 3, H, W) at times t (B,) 0..1, words (B, K + 1); the last column: no words."""
        out = self.unet(pixel_unshuffle(x, PATCH_PX), t * 1000, class_labels=self.words(words)).sample
        return pixel_shuffle(out, PATCH_PX)


def conditions(captions: Sequence[str]) -> Tensor:
    """Words of captions as the network takes them: float32 (B, K + 1)."""
    rows = np.stack([vector(caption) for caption in captions])
    return torch.from_numpy(np.concatenate([rows, np.zeros((len(rows), 1), np.float32)], axis=1))


def no_words(n: int) -> Tensor:
    """What stands for a prompt that was left out: float32 (n, K + 1)."""
    blank = torch.zeros(n, len(WORDS) + 1)
    blank[:, -1] = 1
    return blank


@torch.inference_mode()
def sample(
    net: nn.Module, captions: Sequence[str], seeds: Sequence[int], steps: int, guidance: float
) -> list[Pixels]:
    """One picture a caption, uint8 RGB (64, 64, 3): the same for a seed whatever else is in the batch.

    Args:
        net: SmallFlow in eval mode.
        captions: prompts.
        seeds: one a picture.
        steps: Euler steps.
        guidance: classifier-free; 1 for none.
    """
    device = next(net.parameters()).device
    words, blank = conditions(captions).to(device), no_words(len(captions)).to(device)
    noise = [
        torch.randn(3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    x = torch.stack(noise).to(device)
    times = torch.linspace(1, 0, steps + 1).tolist()
    for now, after in pairwise(times):
        t = torch.full((len(x),), now, device=device)
        velocity = net(x, t, words)
        if guidance != 1:
            plain = net(x, t, blank)
            velocity = plain + guidance * (velocity - plain)
        x = x + (after - now) * velocity
    pixels = ((x * SPREAD).clamp(-1, 1) + 1) * 127.5
    return list(pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())


def load(path: Path) -> SmallFlow:
    """The trained network, fp32, eval mode.

    Raises:
        WeightsError: the file is missing or of another network.
    """
    safetensors: Any = require("safetensors.torch", "pairs", "The generator small64")
    net = SmallFlow()
    try:
        tensors = safetensors.load_file(path)
        net.load_state_dict({name: value.float() for name, value in tensors.items()})
    except Exception as error:  # a missing, cut or other file: safetensors and torch raise kinds of their own
        raise WeightsError(f"The weights {path} cannot be read: {str(error).splitlines()[0]}") from error
    return net.eval()


class Small:
    """`small64` as a generator.

    Args:
        entry: of the registry.
        device: to run on.

    Raises:
        WeightsError: the weights are not there.
    """

    def __init__(self, entry: Entry, device: str) -> None:
        path = Path(entry.id) if entry.id else WEIGHTS
        self.entry = entry
        self.net = load(path).to(device)
        self.revision = f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"

    def make(self, requests: Sequence[Request]) -> list[Made]:
        """See Backend."""
        captions, seeds = [r.caption for r in requests], [r.seed for r in requests]
        made = sample(self.net, captions, seeds, self.entry.steps, self.entry.guidance)
        return [Made(np.ascontiguousarray(pixels)) for pixels in made]
