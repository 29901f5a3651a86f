"""Write the table of recipe keys in docs/training.md from the dataclasses: python docs/make_recipe_keys.py."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mai.moondream.recipe import TuneRecipe
from mai.probe.recipe import ProbeRecipe
from mai.training.recipe import Recipe

PAGE = Path(__file__).parent / "training.md"
BEGIN, END = "<!-- recipe keys: begin -->\n", "<!-- recipe keys: end -->"


def explained(cls: type) -> dict[str, str]:
    """Field -> its sentence under `Attributes:` in the docstring."""
    text = inspect.getdoc(cls) or ""
    parts = re.split(r"^    (\w+): ", text.partition("Attributes:\n")[2], flags=re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in zip(parts[1::2], parts[2::2], strict=True)}


def keys(cls: type = Recipe, table: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, default and sentence of every value of a recipe."""
    kinds, sentences = typing.get_type_hints(cls), explained(cls)
    for f in dataclasses.fields(cls):
        kind: Any = kinds[f.name]
        if dataclasses.is_dataclass(kind):
            yield from keys(typing.cast(type, kind), f"{table}{f.name}.")
        else:
            missing = f.default is dataclasses.MISSING
            default = (
                "needed"
                if missing
                else f"`{str(f.default).lower() if isinstance(f.default, bool) else f.default}`"
            )
            yield f"{table}{f.name}", default, sentences[f.name]


def all_keys() -> Iterator[tuple[str, str, str]]:
    """Keys of the shared recipes, then those that only the probe's and Moondream's have."""
    shared = list(keys())
    yield from shared
    known = {key for key, _, _ in shared}
    for name, cls in (("probe", ProbeRecipe), ("moondream", TuneRecipe)):
        for key, default, sentence in keys(cls):
            if key not in known:
                known.add(key)
                yield key, default, f"({name}) {sentence}"


def page() -> str:
    """The text of docs/training.md with its table made anew."""
    lines = ["| key | default | means |", "|---|---|---|"]
    lines += [f"| `{key}` | {default} | {sentence} |" for key, default, sentence in all_keys()]
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
