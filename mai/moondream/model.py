"""Moondream 2: a vision transformer, a projector, a text decoder. A plain nn.Module; weights by the official names.

    crops (N, 3, 378, 378): one global view and up to 12 tiles
      -> vision: ViT, 27 x 27 = 729 tokens a crop                                     (N, 729, V)
      -> tiles stitched to one map, pooled to 27 x 27, beside the global view         (729, 2 V)
      -> proj_mlp                                                                     (729, D)
    [bos; image tokens; words] -> text: parallel blocks x + attn(ln x) + mlp(ln x)    (T, D) -> logits (T, vocab)

bos and image tokens see one another, words only what stands before them (prefix-LM). Image features do not depend on
the question. Reference: github.com/vikhyat/moondream (Apache-2.0), revision 2025-06-21 of vikhyatk/moondream2; numbers
agree with it to 1e-4 (`mai doctor moondream --golden DIR`). Every weight is used through its module's forward, so that
adapters around a module train (on the reference, attention weights are read past their module, and peft trains
nothing). Rotary tables and masks are computed at each call: no buffer has to survive loading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from mai.moondream.vision import MLP, Vision, VisionConfig


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Sizes of the text part; defaults are Moondream 2's.

    Attributes:
        n_layers: blocks.
        dim: width D.
        ff_dim: width inside the MLP.
        n_heads: attention heads.
        vocab: tokens.
        context: most positions.
        theta: base of the rotary frequencies.
    """

    n_layers: int = 24
    dim: int = 2048
    ff_dim: int = 8192
    n_heads: int = 32
    vocab: int = 51200
    context: int = 2048
    theta: float = 10000.0


@dataclass(frozen=True, slots=True)
class MoondreamConfig:
    """Both parts."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)


def rotate(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotary position on the first half of each head's dimensions.

    The reference splits the rotated part in halves and writes it interleaved, for queries and keys alike; products of
    the two are those of the plain rotate-half form, which stands here.

    Args:
        x: (B, H, T, h).
        positions: (B, T).
        theta: base of the frequencies.
    """
    n = x.shape[-1] // 2
    frequency = 1.0 / (theta ** (torch.arange(0, n, 2, dtype=torch.float32, device=x.device) / n))
    angle = positions[:, None, :, None].float() * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    one, two, rest = x[..., : n // 2], x[..., n // 2 : n], x[..., n:]
    return torch.cat([one * cos - two * sin, one * sin + two * cos, rest], dim=-1)


class KeyValues:
    """Keys and values of all that was read so far, a layer each: (B, H, T, h)."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append and return all of a layer."""
        if layer in self.layers:
            k = torch.cat([self.layers[layer][0], k], dim=2)
            v = torch.cat([self.layers[layer][1], v], dim=2)
        self.layers[layer] = (k, v)
        return k, v

    def split(self) -> list[KeyValues]:
        """One of batch size 1 for each row, in memory of its own."""
        b = len(next(iter(self.layers.values()))[0])
        rows = [KeyValues() for _ in range(b)]
        for layer, (k, v) in self.layers.items():
            for i, row in enumerate(rows):
                row.layers[layer] = k[i : i + 1].clone(), v[i : i + 1].clone()
        return rows

    @staticmethod
    def join(rows: Sequence[KeyValues]) -> KeyValues:
        """The batch of rows of batch size 1."""
        out = KeyValues()
        for layer in rows[0].layers:
            pairs = [row.layers[layer] for row in rows]
            out.layers[layer] = torch.cat([k for k, _ in pairs]), torch.cat([v for _, v in pairs])
        return out

    @property
    def n_bytes(self) -> int:
        """Memory that it holds."""
        return sum(t.nbytes for pair in self.layers.values() for t in pair)


class TextAttention(nn.Module):
    """Self-attention with rotary positions and a given mask."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.n_heads, self.theta = config.n_heads, config.theta
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Tensor, cache: KeyValues | None, layer: int
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); mask bool (B, 1, T, all keys), True: may look."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.n_heads, d // self.n_heads).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, positions, self.theta), rotate(k, positions, self.theta)
        if cache is not None:
            k, v = cache.add(layer, k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.proj(y.transpose(1, 2).reshape(b, t, d))
        return out


class TextBlock(nn.Module):
    """x + attn(ln x) + mlp(ln x): one norm, both branches beside each other."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(config.dim)
        self.attn = TextAttention(config)
        self.mlp = MLP(config.dim, config.ff_dim, config.dim)

    def forward(
        self, x: Tensor, positions: Tensor, mask: Tensor, cache: KeyValues | None, layer: int
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        y = self.ln(x)
        out: Tensor = x + self.attn(y, positions, mask, cache, layer) + self.mlp(y)
        return out


class Text(nn.Module):
    """The decoder."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Parameter(torch.zeros(config.vocab, config.dim))
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.n_layers))
        self.post_ln = nn.LayerNorm(config.dim)
        self.lm_head = nn.Linear(config.dim, config.vocab)
        self.gradient_checkpointing = False

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids (...) -> (..., D)."""
        return F.embedding(tokens, self.wte)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor, cache: KeyValues | None = None) -> Tensor:
        """Embeddings (B, T, D) -> hidden (B, T, D), before the last norm."""
        for layer, block in enumerate(self.blocks):
            if self.gradient_checkpointing and self.training:
                x = torch.utils.checkpoint.checkpoint(
                    block, x, positions, mask, None, layer, use_reentrant=False
                )
            else:
                x = block(x, positions, mask, cache, layer)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., vocab)."""
        y: Tensor = self.lm_head(self.post_ln(hidden))
        return y


class Moondream(nn.Module):
    """See the head of this module.

    Args:
        config: sizes.
    """

    def __init__(self, config: MoondreamConfig | None = None) -> None:
        super().__init__()
        self.config = config or MoondreamConfig()
        self.vision = Vision(self.config.vision, self.config.text.dim)
        self.text = Text(self.config.text)

    @property
    def n_prefix(self) -> int:
        """bos and image tokens: positions that see one another."""
        return 1 + self.config.vision.grid**2

    def read(
        self, features: Tensor, tokens: Tensor, lengths: Tensor, bos: int, cache: KeyValues | None = None
    ) -> Tensor:
        """Hidden states of [bos; image; words].

        Args:
            features: (B, grid^2, D), of image.
            tokens: (B, T) word ids, filled up on the right with any id.
            lengths: (B,) words that count in each row; the rest is never looked at.
            bos: id of the first token.
            cache: filled with keys and values.

        Returns:
            (B, T, D): of the words; the state before the first word, of the last image token, is at [:, 0] of
            (B, 1 + T, D), which is what is returned.
        """
        b = len(tokens)
        start = self.text.embed(torch.full((b, 1), bos, device=tokens.device))
        x = torch.cat([start, features.to(start.dtype), self.text.embed(tokens)], dim=1)
        n, p = x.shape[1], self.n_prefix
        if n > self.config.text.context:
            raise ValueError(f"{n} tokens are more than the {self.config.text.context} that the model reads.")
        order = torch.arange(n, device=x.device)
        may = (order[None, :] <= order[:, None]) | ((order[:, None] < p) & (order[None, :] < p))
        valid = order[None, :] < (p + lengths)[:, None]
        # A row of padding would see nothing at all, and its softmax would be NaN: it may see itself.
        mask = (may[None] & valid[:, None, :]) | torch.eye(n, dtype=torch.bool, device=x.device)[None]
        hidden = self.text(x, order[None].expand(b, n), mask[:, None], cache)
        out: Tensor = hidden[:, p - 1 :]
        return out

    def read_picture(self, features: Tensor, bos: int) -> KeyValues:
        """Keys and values of [bos; image], which do not depend on the words behind them: features (B, grid^2, D)."""
        b, cache = len(features), KeyValues()
        start = self.text.embed(torch.full((b, 1), bos, device=features.device))
        x = torch.cat([start, features.to(start.dtype)], dim=1)
        order = torch.arange(self.n_prefix, device=x.device)
        mask = torch.ones(1, 1, self.n_prefix, self.n_prefix, dtype=torch.bool, device=x.device)
        self.text(x, order[None].expand(b, -1), mask, cache)
        return cache

    def read_words(self, tokens: Tensor, lengths: Tensor, cache: KeyValues) -> Tensor:
        """Hidden states (B, T, D) of words behind pictures that were read: the same as `read` without its first row.

        Args:
            tokens: (B, T) word ids, filled up on the right with any id.
            lengths: (B,) words that count in each row.
            cache: of `read_picture`, B rows; the words are added to it.
        """
        b, n, p = *tokens.shape, self.n_prefix
        if p + n > self.config.text.context:
            raise ValueError(
                f"{p + n} tokens are more than the {self.config.text.context} that the model reads."
            )
        order = torch.arange(n, device=tokens.device)
        may = (order[None, :] <= order[:, None])[None] & (order[None, :] < lengths[:, None])[:, None, :]
        may = (
            may | torch.eye(n, dtype=torch.bool, device=tokens.device)[None]
        )  # padding sees itself, see `read`
        mask = torch.cat([torch.ones(b, n, p, dtype=torch.bool, device=tokens.device), may], dim=2)
        positions = (p + order)[None].expand(b, n)
        hidden: Tensor = self.text(self.text.embed(tokens), positions, mask[:, None], cache)
        return hidden

    def forward(self, features: Tensor, tokens: Tensor, lengths: Tensor, bos: int) -> Tensor:
        """Logits (B, 1 + T, vocab); row i predicts word i. Arguments as of `read`."""
        return self.text.logits(self.read(features, tokens, lengths, bos))
