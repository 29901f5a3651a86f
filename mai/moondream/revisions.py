"""What belongs together: a revision of the weights, its tokenizer, its templates.

Source: vikhyatk/moondream2 on the Hugging Face hub, revision 2025-06-21; the tokenizer is the separate repository
moondream/starmie-v1 (the tokenizer.json beside the weights is stale).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Length = Literal["short", "normal", "long"]


@dataclass(frozen=True, slots=True)
class Templates:
    """Token ids around words.

    Attributes:
        question: before and after a question. The reference doubles the suffix when reasoning is off, and the model was
            trained so.
        caption: length -> the whole prompt.
        bos: the first token, also the one that ends an answer.
    """

    question: tuple[tuple[int, ...], tuple[int, ...]] = ((1, 15381, 2), (3, 3))
    caption: Mapping[str, tuple[int, ...]] = field(
        default_factory=lambda: {
            "short": (1, 32708, 2, 12492, 3),
            "normal": (1, 32708, 2, 6382, 3),
            "long": (1, 32708, 2, 4059, 3),
        }
    )
    bos: int = 0

    @property
    def eos(self) -> int:
        """The token that ends an answer."""
        return self.bos

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, read back by `from_dict`."""
        return {"question": self.question, "caption": dict(self.caption), "bos": self.bos}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Templates:
        """Read what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is no such thing.
        """
        before, after = values["question"]
        captions = {str(name): tuple(map(int, ids)) for name, ids in values["caption"].items()}
        return cls((tuple(map(int, before)), tuple(map(int, after))), captions, int(values["bos"]))


@dataclass(frozen=True, slots=True)
class Revision:
    """One unit.

    Attributes:
        name: of the weights' repository at the hub.
        repo: that repository.
        tokenizer_repo: where tokenizer.json lies.
        templates: token ids around words.
    """

    name: str
    repo: str
    tokenizer_repo: str
    templates: Templates


CURRENT = Revision("2025-06-21", "vikhyatk/moondream2", "moondream/starmie-v1", Templates())
"""What MAI trains and answers with. Older revisions have another tokenizer and templates of text: not supported."""

OWN = "own"
"""Name of the revision of a model with a tokenizer and templates of its own."""

QUESTION = "Is this image AI-generated?"
YES, NO = "Yes.", "No."
YES_VARIANTS = ("Yes.", "Yes", " Yes", "yes", " yes")
NO_VARIANTS = ("No.", "No", " No", "no", " no")
"""Texts whose first tokens stand for an answer; ids are looked up at run time, never written down."""
