"""Captions, answers and scores of pictures: features cached by content, batches of unequal pictures and questions.

chat = Chat(load())
chat.caption([pixels], length="short")
chat.answer([pixels], "What is it?")
chat.score([pixels])            # logsumexp(Yes) - logsumexp(No), from one prefill, no generation
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mai.errors import UsageError, WeightsError
from mai.moondream.crops import crops_of, normalised
from mai.moondream.model import KeyValues
from mai.moondream.revisions import NO_VARIANTS, QUESTION, YES_VARIANTS, Length

if TYPE_CHECKING:
    from mai.moondream.load import Base
    from mai.types import Pixels

MAX_TOKENS = {"short": 96, "normal": 512, "long": 768}
N_CACHED = 64
"""Pictures whose features are kept: 729 x 2048 fp32 is 6 MB each."""
READ_BYTES = 1 << 30
"""Memory for keys and values of pictures already read: 144 MB a picture for Moondream 2 in bf16."""


class Chat:
    """A model at work.

    Args:
        base: model, tokenizer, templates.
        n_cached: pictures whose features are kept.
        crops_at_once: crops in one pass of the vision part: lower it where memory is short.
        read_bytes: memory for keys and values of pictures already read, so that another question about them costs
            only its words; 0: none are kept.
    """

    def __init__(
        self, base: Base, n_cached: int = N_CACHED, crops_at_once: int = 32, read_bytes: int = READ_BYTES
    ) -> None:
        self.base, self.model = base, base.model
        self.templates = base.revision.templates
        self.n_cached, self.crops_at_once = n_cached, crops_at_once
        self.read_bytes = read_bytes
        self._features: OrderedDict[str, Tensor] = OrderedDict()
        self._read: OrderedDict[str, KeyValues] = OrderedDict()
        self.n_encoded = 0
        self.yes, self.no = sides_of(base)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.text.wte.device

    @torch.inference_mode()
    def features(self, images: Sequence[Pixels]) -> Tensor:
        """Image tokens (B, 729, D) of pictures uint8 RGB (H, W, 3), from the cache where a picture was seen before."""
        keys = [_key(image) for image in images]
        fresh = {key: image for key, image in zip(keys, images, strict=True) if key not in self._features}
        made = dict(zip(fresh, self._encode(list(fresh.values())), strict=True))
        out = torch.stack([made[key] if key in made else self._features[key] for key in keys])
        for key in keys:
            self._features[key] = made.get(key, self._features.get(key))  # type: ignore[assignment]
            self._features.move_to_end(key)
        while len(self._features) > self.n_cached:
            self._features.popitem(last=False)
        return out

    def _encode(self, images: Sequence[Pixels]) -> list[Tensor]:
        """All crops of all pictures together, `crops_at_once` at a time."""
        if not images:
            return []
        cut = [crops_of(image, self.model.config.vision) for image in images]
        # One tile is the global view again: it is seen once.
        cut = [(own[:1] if tiling == (1, 1) else own, tiling) for own, tiling in cut]
        crops = torch.from_numpy(normalised(np.concatenate([own for own, _ in cut])))
        dtype = self.model.vision.pos_emb.dtype
        tokens = torch.cat(
            [
                self.model.vision.tokens(part.to(self.device, dtype))
                for part in torch.split(crops, self.crops_at_once)
            ]
        )
        parts = torch.split(tokens, [len(own) for own, _ in cut])
        self.n_encoded += len(images)
        return [self.model.vision.project(part, tiling) for part, (_, tiling) in zip(parts, cut, strict=True)]

    @torch.inference_mode()
    def _pictures_read(self, images: Sequence[Pixels]) -> KeyValues:
        """Keys and values of pictures, of those seen before from memory; may be added to."""
        keys = [_key(image) for image in images]
        fresh = {key: image for key, image in zip(keys, images, strict=True) if key not in self._read}
        made: dict[str, KeyValues] = {}
        if fresh:
            both = self.model.read_picture(self.features(list(fresh.values())), self.templates.bos)
            if not self.read_bytes and len(fresh) == len(keys):
                return both
            made = dict(zip(fresh, both.split(), strict=True))
        rows = [made[key] if key in made else self._read[key] for key in keys]
        for key, row in zip(keys, rows, strict=True):
            self._read[key] = row
            self._read.move_to_end(key)
        held = sum(row.n_bytes for row in self._read.values())
        while self._read and held > self.read_bytes:
            held -= self._read.popitem(last=False)[1].n_bytes
        return KeyValues.join(rows)

    def _words(self, questions: Sequence[str]) -> list[list[int]]:
        before, after = self.templates.question
        encode = self.base.tokenizer.encode
        words = [[*before, *encode(q, add_special_tokens=False).ids, *after] for q in questions]
        most = self.model.config.text.context - self.model.n_prefix
        longest = max(map(len, words), default=0)
        if longest >= most:
            raise UsageError(
                f"A question has {longest} tokens; beside a picture there is room for {most - 1}."
            )
        return words

    @torch.inference_mode()
    def score(self, images: Sequence[Pixels], question: str = QUESTION) -> list[float]:
        """Raw score of each picture: logsumexp of the logits of Yes minus that of No at the first answer token.

        Above 0 leans synthetic. It is made a probability by the calibration beside an adapter.
        """
        if not images:
            return []
        tokens, lengths = padded(self._words([question] * len(images)), self.device)
        hidden = self.model.read_words(tokens, lengths, self._pictures_read(images))
        last = hidden[torch.arange(len(images), device=self.device), lengths - 1]
        logits = self.model.text.logits(last).float()
        yes = logits[:, self.yes].logsumexp(-1) - logits[:, self.no].logsumexp(-1)
        return [float(value) for value in yes]

    @torch.inference_mode()
    def first_logits(self, features: Tensor, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Logits (B, vocab) fp32 of the token after each prompt; prompts may differ in length."""
        tokens, lengths = padded(prompts, self.device)
        hidden = self.model.read(features, tokens, lengths, self.templates.bos)
        last = hidden[torch.arange(len(prompts), device=self.device), lengths]
        return self.model.text.logits(last).float()

    def caption(
        self, images: Sequence[Pixels], length: Length = "normal", max_tokens: int | None = None
    ) -> list[str]:
        """A caption of each picture, greedy.

        Args:
            images: uint8 RGB (H, W, 3) each.
            length: short, normal or long.
            max_tokens: at most so many; by length if None.

        Raises:
            UsageError: an unknown length.
        """
        if length not in self.templates.caption:
            raise UsageError(f"A caption is {', '.join(self.templates.caption)}, not '{length}'.")
        prompts = [list(self.templates.caption[length])] * len(images)
        return self._texts(images, prompts, max_tokens or MAX_TOKENS[length])

    def answer(
        self, images: Sequence[Pixels], question: str | Sequence[str], max_tokens: int = 256
    ) -> list[str]:
        """The answer to a question, or to one of its own, about each picture, greedy."""
        questions = [question] * len(images) if isinstance(question, str) else list(question)
        if len(questions) != len(images):
            raise UsageError(f"There are {len(images)} pictures and {len(questions)} questions.")
        return self._texts(images, self._words(questions), max_tokens)

    def _texts(
        self, images: Sequence[Pixels], prompts: Sequence[Sequence[int]], max_tokens: int
    ) -> list[str]:
        if not images:
            return []
        rows = self._greedy(self._cached(self._pictures_read(images), prompts), prompts, max_tokens)
        return [str(self.base.tokenizer.decode(row)).strip() for row in rows]

    @torch.inference_mode()
    def generate(
        self, features: Tensor, prompts: Sequence[Sequence[int]], max_tokens: int, use_cache: bool = True
    ) -> list[list[int]]:
        """Greedy tokens after each prompt, without the ending one.

        Args:
            features: (B, 729, D).
            prompts: word ids of each row.
            max_tokens: at most so many.
            use_cache: keep keys and values; False reads everything anew at each token (for tests: the same tokens).
        """
        if use_cache:
            steps = self._cached(self.model.read_picture(features, self.templates.bos), prompts)
        else:
            steps = self._uncached(features, prompts)
        return self._greedy(steps, prompts, max_tokens)

    @torch.inference_mode()
    def _greedy(
        self, steps: Iterator[Tensor], prompts: Sequence[Sequence[int]], max_tokens: int
    ) -> list[list[int]]:
        room = self.model.config.text.context - self.model.n_prefix - max(map(len, prompts))
        rows: list[list[int]] = [[] for _ in prompts]
        done = [False] * len(prompts)
        for _, tokens in zip(range(min(max_tokens, room)), steps, strict=False):
            for i, token in enumerate(tokens.tolist()):
                done[i] = done[i] or token == self.templates.eos
                if not done[i]:
                    rows[i].append(token)
            if all(done):
                break
        return rows

    def _cached(self, cache: KeyValues, prompts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        tokens, lengths = padded(prompts, self.device)
        b = len(prompts)
        hidden = self.model.read_words(tokens, lengths, cache)
        state = hidden[torch.arange(b, device=self.device), lengths - 1]
        n = self.model.n_prefix
        order = torch.arange(n + tokens.shape[1], device=self.device)
        seen = order[None] < (n + lengths)[:, None]
        positions = n + lengths
        while True:
            token = self.model.text.logits(state).argmax(-1)
            yield token
            seen = torch.cat([seen, torch.ones(b, 1, dtype=torch.bool, device=self.device)], dim=1)
            x = self.model.text.embed(token)[:, None]
            state = self.model.text(x, positions[:, None], seen[:, None, None], cache)[:, 0]
            positions = positions + 1

    def _uncached(self, features: Tensor, prompts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        rows = [list(prompt) for prompt in prompts]
        while True:
            token = self.first_logits(features, rows).argmax(-1)
            yield token
            for row, value in zip(rows, token.tolist(), strict=True):
                row.append(value)


def sides_of(base: Base) -> tuple[list[int], list[int]]:
    """First tokens of the ways to say yes, and of those to say no.

    Raises:
        WeightsError: the tokenizer does not tell them apart.
    """
    sides = []
    for variants in (YES_VARIANTS, NO_VARIANTS):
        encoded = [base.tokenizer.encode(text, add_special_tokens=False).ids for text in variants]
        sides.append(sorted({ids[0] for ids in encoded if ids}))
    yes, no = sides
    if not yes or not no or set(yes) & set(no):
        raise WeightsError(f"{base.source}: its tokenizer does not tell 'Yes' from 'No' by the first token.")
    return yes, no


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids -> int64 (B, longest), filled up with 0 on the right, and (B,) lengths."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64, device=device)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row, device=device)
    return tokens, lengths


def _key(image: Pixels) -> str:
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
