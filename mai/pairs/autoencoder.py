"""Round trips through an image autoencoder: pairs that are aligned to the pixel, at a thousandth of the cost.

The synthetic member is the authentic one encoded and decoded: it has the traces of a latent generator's decoder and the
content of the photograph (AlignedForensics, Dual-Data-Alignment). Tiny distilled autoencoders (TAESD by O. B. Bohan,
github.com/madebyollin/taesd, MIT) are read in their own layout from a folder: `NAME_encoder.safetensors` and
`NAME_decoder.safetensors`; others by hub id through diffusers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mai.errors import WeightsError, require
from mai.pairs.generate import Made, Request
from mai.pairs.registry import Entry

WIDTH = 64


class Block(nn.Module):
    """Three convolutions with a skip; with `has_pool` a normed bottleneck first (TAEF2)."""

    def __init__(self, has_pool: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        )  # fmt: skip
        if has_pool:
            self.pool = nn.Sequential(
                nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False), nn.GroupNorm(4, 4 * WIDTH), nn.ReLU(),
                nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, 64, H, W) -> the same."""
        if hasattr(self, "pool"):
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class SoftClamp(nn.Module):
    """Latents to -3..3, softly."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return torch.tanh(x / 3) * 3


def _encoder(n_latent: int, pooled: set[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), Block(1 in pooled)]
    for _ in range(3):
        layers.append(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False))
        layers += [Block(len(layers) + i in pooled) for i in range(3)]
    return nn.Sequential(*layers, nn.Conv2d(WIDTH, n_latent, 3, padding=1))


def _decoder(n_latent: int, pooled: set[int]) -> nn.Sequential:
    layers: list[nn.Module] = [SoftClamp(), nn.Conv2d(n_latent, WIDTH, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [Block(len(layers) + i in pooled) for i in range(3)]
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)]
    return nn.Sequential(*layers, Block(len(layers) in pooled), nn.Conv2d(WIDTH, 3, 3, padding=1))


class TinyAutoencoder(nn.Module):
    """The architecture of TAESD, TAESDXL, TAESD3, TAEF1 and TAEF2: images in 0..1, factor 8.

    Args:
        encoder: its tensors by the names of the taesd repository (`N.weight`, `N.conv.M.weight`).
        decoder: the same.

    Raises:
        WeightsError: they are of another architecture.
    """

    def __init__(self, encoder: dict[str, Tensor], decoder: dict[str, Tensor]) -> None:
        super().__init__()
        parts = []
        for made, tensors, key in ((_encoder, encoder, "14.weight"), (_decoder, decoder, "1.weight")):
            pooled = {int(name.split(".")[0]) for name in tensors if ".pool." in name}
            try:
                net = made(tensors[key].shape[0 if made is _encoder else 1], pooled)
                net.load_state_dict({name: value.float() for name, value in tensors.items()})
            except (KeyError, RuntimeError) as error:
                raise WeightsError(f"These are no weights of a tiny autoencoder: {error}") from error
            parts.append(net)
        self.encoder, self.decoder = parts
        self.dtype = torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """Round trip of (B, 3, H, W) in 0..1, sides multiples of 8."""
        out: Tensor = self.decoder[-1](self.decoder[:-1](self.encoder(x.to(self.dtype))).float())
        return out

    def halve(self) -> None:
        """Compute in bf16, all but the last layer: half the time, and no steps in the histogram of what comes out."""
        self.dtype = torch.bfloat16
        self.encoder.to(self.dtype)
        self.decoder[:-1].to(self.dtype)


class RoundTrip:
    """An autoencoder as a generator.

    Args:
        entry: its id is a hub id, a folder, or `NAME` of a tiny one in `folder`.
        device: to run on.
        folder: with weights, in place of the hub.

    Raises:
        WeightsError: there are no such weights.
    """

    def __init__(self, entry: Entry, device: str, folder: Path | None = None) -> None:
        self.device = device
        name = entry.name.removeprefix("vae:")
        tiny = _tiny_files(folder, name)
        if tiny:
            safetensors: Any = require("safetensors.torch", "pairs", "Round trips")
            tensors = [safetensors.load_file(path) for path in tiny]
            digest = hashlib.sha256(b"".join(path.read_bytes() for path in tiny)).hexdigest()
            self.net: nn.Module = TinyAutoencoder(*tensors)
            self.revision = f"sha256 {digest[:16]}"
        else:
            self.net, self.revision = _from_hub(entry, folder)
        self.net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if entry.dtype == "bf16" and isinstance(self.net, TinyAutoencoder):
            self.net.halve()

    @torch.inference_mode()
    def make(self, requests: Sequence[Request]) -> list[Made]:
        """See Backend."""
        stacked = np.stack([request.authentic for request in requests])
        x = torch.from_numpy(stacked).to(self.device).permute(0, 3, 1, 2).float() / 255
        is_tiny = isinstance(self.net, TinyAutoencoder)
        out = self.net(x) if is_tiny else (_decoded(self.net, x * 2 - 1) + 1) / 2
        pixels = (out.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [Made(np.ascontiguousarray(one)) for one in pixels]


def _decoded(net: Any, x: Tensor) -> Tensor:
    """Encode and decode with a class of diffusers: the mean of the latents, nothing drawn."""
    latents = net.encode(x)
    latent = latents.latents if hasattr(latents, "latents") else latents.latent_dist.mode()
    out: Tensor = net.decode(latent).sample
    return out


def _tiny_files(folder: Path | None, name: str) -> tuple[Path, Path] | None:
    if folder is None:
        return None
    files = folder / f"{name}_encoder.safetensors", folder / f"{name}_decoder.safetensors"
    return files if all(path.is_file() for path in files) else None


def _from_hub(entry: Entry, folder: Path | None) -> tuple[nn.Module, str]:
    diffusers = require("diffusers", "pairs", "Round trips")
    source = str(folder or entry.id)
    try:
        config, _ = diffusers.AutoencoderKL.load_config(
            source, revision=entry.revision, return_unused_kwargs=True, **entry.loading
        )
        cls = getattr(diffusers, config["_class_name"])
        net: nn.Module = cls.from_pretrained(source, revision=entry.revision, **entry.loading)
    except Exception as error:  # the hub's library raises many kinds
        words = str(error).strip().splitlines()
        name = entry.name.removeprefix("vae:")
        raise WeightsError(
            f"{entry.name} ({source}) cannot be loaded: {words[0] if words else type(error).__name__}. "
            f"With it on disk, give --weights DIR: {name}_encoder.safetensors and {name}_decoder.safetensors, "
            "or a folder of diffusers."
        ) from error
    return net, f"folder {folder.name}" if folder else entry.revision
