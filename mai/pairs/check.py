"""What can be known before a folder of pairs is begun, names, files and packages: a slip leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mai.errors import UsageError, require
from mai.pairs import caption, registry
from mai.pairs.generate import Runtime, must_be_named, must_edit
from mai.pairs.http_images import HttpImages
from mai.pairs.plan import authentic_rows
from mai.pairs.settings import Settings

REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""`NAME` or `ORG/NAME`, as the hub calls a model."""


def first_pass(settings: Settings) -> None:
    """Whether the first pass can be begun; a network's weights are not fetched for that.

    Raises:
        UsageError: no captioner of that name, or its file is none; there is no authentic image.
        DataError: the captions' table lacks a column; there is no data.
        MissingExtraError: a package that it needs is not installed.
    """
    _packages("Making pairs", ["pyarrow"], "pairs")
    kind, _, rest = settings.captioner.partition(":")
    if kind in {"moondream", "tiny"}:
        _packages("Moondream", ["torch", "safetensors.torch", "tokenizers"], "vlm")
        _model(rest)
    elif kind == "hf" and rest:
        _packages("Captions", ["torch", "transformers"], "pairs")
        _model(rest)
    else:
        caption.open_captioner(settings.captioner, settings.caption_length)
    authentic_rows(settings.authentic)


def second_pass(settings: Settings, runtime: Runtime | None = None) -> None:
    """Whether the second pass can be begun; weights are not fetched for that.

    Args:
        settings: its values of the second pass count.
        runtime: of this machine; None: that of the workers is not known.

    Raises:
        UsageError: a generator cannot do that edit, does not fit into the memory, or is hosted and was not named.
        MissingExtraError: a package that a generator needs is not installed.
    """
    for entry in settings.mix.entries:
        must_edit(entry, settings.edit)
        if entry.kind != "http":
            _packages(f"The generator {entry.name}", ["torch", "diffusers", "transformers"], "pairs")
        if runtime is None:
            continue
        if entry.kind == "http":
            must_be_named(entry, runtime)
            HttpImages(entry)  # refuses one without its key
        elif entry.kind == "diffusers":
            plan = registry.plan_for(entry, runtime.memory_gb, runtime.load)
            _packages("Loading in NF4", ["bitsandbytes"] if plan.quantised else [], "quantise")


def ray() -> None:
    """Whether the engine ray is here.

    Raises:
        MissingExtraError: it is not installed.
    """
    _packages("The engine ray", ["ray"], "scale")


def _packages(purpose: str, names: Sequence[str], extra: str) -> None:
    for name in names:
        require(name, extra, purpose)


def _model(name: str) -> None:
    if name and not Path(name).is_dir() and not REPOSITORY.fullmatch(name):
        raise UsageError(
            f"There is no folder '{name}' with a captioner's weights, and no model of a hub is called so."
        )
