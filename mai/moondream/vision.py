"""Moondream 2's vision transformer and projector: a picture's crops to image tokens (model.py has the whole).

Used whole by Moondream, and without its projector as frozen features (backbone.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """Sizes of the vision part; defaults are Moondream 2's.

    Attributes:
        n_layers: blocks.
        dim: width.
        ff_dim: width inside the MLP of a block.
        n_heads: attention heads.
        patch_px: side of a patch.
        crop_px: side of a crop; crop_px / patch_px tokens a side.
        max_crops: most tiles beside the global view: the main speed knob.
        overlap_patches: margin of a tile that its neighbours share, in patches.
        proj_dim: width inside the projector.
    """

    n_layers: int = 27
    dim: int = 1152
    ff_dim: int = 4304
    n_heads: int = 16
    patch_px: int = 14
    crop_px: int = 378
    max_crops: int = 12
    overlap_patches: int = 4
    proj_dim: int = 8192

    @property
    def grid(self) -> int:
        """Tokens a side."""
        return self.crop_px // self.patch_px


class MLP(nn.Module):
    """fc2(gelu(fc1(x))), tanh approximation of GELU."""

    def __init__(self, dim: int, inner: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, inner)
        self.fc2 = nn.Linear(inner, out)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., out)."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return y


class VisionAttention(nn.Module):
    """Self-attention without a mask."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, V) -> (N, T, V)."""
        n, t, v = x.shape
        q, k, value = self.qkv(x).view(n, t, 3, self.n_heads, v // self.n_heads).permute(2, 0, 3, 1, 4)
        y: Tensor = self.proj(F.scaled_dot_product_attention(q, k, value).transpose(1, 2).reshape(n, t, v))
        return y


class VisionBlock(nn.Module):
    """x + attn(ln1 x), then x + mlp(ln2 x)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.dim)
        self.attn = VisionAttention(config.dim, config.n_heads)
        self.ln2 = nn.LayerNorm(config.dim)
        self.mlp = MLP(config.dim, config.ff_dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, V) -> (N, T, V)."""
        x = x + self.attn(self.ln1(x))
        y: Tensor = x + self.mlp(self.ln2(x))
        return y


class Vision(nn.Module):
    """The vision transformer and the projector."""

    def __init__(self, config: VisionConfig, out_dim: int) -> None:
        super().__init__()
        self.config = config
        self.patch_emb = nn.Linear(3 * config.patch_px**2, config.dim)
        self.pos_emb = nn.Parameter(torch.zeros(1, config.grid**2, config.dim))
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.n_layers))
        self.post_ln = nn.LayerNorm(config.dim)
        self.proj_mlp = MLP(2 * config.dim, config.proj_dim, out_dim)
        self.gradient_checkpointing = False

    def tokens(self, crops: Tensor) -> Tensor:
        """(N, 3, S, S), values -1..1 -> (N, grid^2, V)."""
        n, p, g = len(crops), self.config.patch_px, self.config.grid
        patches = crops.view(n, 3, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(n, g * g, 3 * p * p)
        x = self.patch_emb(patches) + self.pos_emb
        for block in self.blocks:
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        y: Tensor = self.post_ln(x)
        return y

    def forward(self, crops: Tensor, tiling: tuple[int, int]) -> Tensor:
        """Image tokens of one picture.

        Args:
            crops: (1 + rows * columns, 3, S, S), the global view first; with one tile it alone will do, see `project`.
            tiling: (rows, columns) of the tiles.

        Returns:
            (grid^2, D).
        """
        return self.project(self.tokens(crops), tiling)

    def project(self, tokens: Tensor, tiling: tuple[int, int]) -> Tensor:
        """Tokens (..., 1 + rows * columns, grid^2, V) of pictures' crops -> (..., grid^2, D).

        With one tile, the global view and the tile are the same pixels: its tokens alone, (..., 1, grid^2, V), will do.
        """
        g = self.config.grid
        tiles = tokens if tokens.shape[-3] == 1 else tokens[..., 1:, :, :]
        whole = stitch(tiles.reshape(*tiles.shape[:-2], g, g, -1), tiling, self.config.overlap_patches)
        pooled = F.adaptive_avg_pool2d(whole.movedim(-1, -3), (g, g)).flatten(-2).transpose(-1, -2)
        y: Tensor = self.proj_mlp(torch.cat([tokens[..., 0, :, :], pooled], dim=-1))
        return y


def stitch(tiles: Tensor, tiling: tuple[int, int], margin: int) -> Tensor:
    """Overlapping tiles (..., rows * columns, g, g, V) -> one map; inner margins are cut, outer ones kept."""
    rows, columns = tiling
    g = tiles.shape[-2]
    lines = []
    for r in range(rows):
        parts = []
        for c in range(columns):
            top, bottom = (0 if r == 0 else margin), (g if r == rows - 1 else g - margin)
            left, right = (0 if c == 0 else margin), (g if c == columns - 1 else g - margin)
            parts.append(tiles[..., r * columns + c, top:bottom, left:right, :])
        lines.append(torch.cat(parts, dim=-2))
    return torch.cat(lines, dim=-3)
