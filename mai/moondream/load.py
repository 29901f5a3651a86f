"""Official weights -> our module: both key layouts, from a folder or the hub, every file hashed.

    model.vision.*  model.text.*                                      the layout of 2025 (model.region.* is left out)
    vision_encoder.*  text_model.*                                    the older one

A key that is missing, left over or of another shape is an error that names it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mai.errors import WeightsError, require
from mai.moondream.revisions import CURRENT, OWN, Revision, Templates

if TYPE_CHECKING:
    import torch

    from mai.moondream.model import Moondream, MoondreamConfig

IGNORED = re.compile(r"^(model\.)?region\.|^region_model\.")
"""Pointing and detecting: parts that MAI does not use."""

_OLD: tuple[tuple[str, str], ...] = (
    (r"^vision_encoder\.encoder\.model\.visual\.patch_embed\.linear\.", "vision.patch_emb."),
    (r"^vision_encoder\.encoder\.model\.visual\.pos_embed$", "vision.pos_emb"),
    (r"^vision_encoder\.encoder\.model\.visual\.blocks\.(\d+)\.norm([12])\.", r"vision.blocks.\1.ln\2."),
    (r"^vision_encoder\.encoder\.model\.visual\.blocks\.", "vision.blocks."),
    (r"^vision_encoder\.encoder\.model\.visual\.norm\.", "vision.post_ln."),
    (r"^vision_encoder\.projection\.mlp\.", "vision.proj_mlp."),
    (r"^text_model\.transformer\.embd\.wte\.weight$", "text.wte"),
    (r"^text_model\.transformer\.h\.(\d+)\.mixer\.Wqkv\.", r"text.blocks.\1.attn.qkv."),
    (r"^text_model\.transformer\.h\.(\d+)\.mixer\.out_proj\.", r"text.blocks.\1.attn.proj."),
    (r"^text_model\.transformer\.h\.", "text.blocks."),
    (r"^text_model\.lm_head\.ln\.", "text.post_ln."),
    (r"^text_model\.lm_head\.linear\.", "text.lm_head."),
)


def our_name(key: str) -> str | None:
    """A key of either official layout as our module names it; None for parts that MAI does not use."""
    if IGNORED.match(key):
        return None
    for pattern, name in _OLD:
        new, n = re.subn(pattern, name, key)
        if n:
            return new
    return key.removeprefix("model.")


def fill(model: Moondream, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load tensors of either layout into a model, kept in the model's precision.

    Raises:
        WeightsError: a key is missing, left over, there twice, or of another shape; it is named.
    """
    import torch

    target = model.state_dict()
    given: dict[str, str] = {}
    for key in state:
        name = our_name(key)
        if name is None:
            continue
        if name not in target:
            raise WeightsError(
                f"{source}: unexpected tensor '{key}'. It is not Moondream 2, or another revision."
            )
        if name in given:
            raise WeightsError(f"{source}: '{key}' and '{given[name]}' are both '{name}'.")
        given[name] = key
    missing = sorted(set(target) - set(given))
    if missing:
        raise WeightsError(
            f"{source}: {len(missing)} tensors are missing, the first is '{missing[0]}'. "
            "The download may be partial: fetch it again."
        )
    with torch.no_grad():
        for name, key in given.items():
            value = state[key]
            if value.shape != target[name].shape:
                raise WeightsError(
                    f"{source}: '{key}' is {tuple(value.shape)}, wanted {tuple(target[name].shape)}."
                )
            target[name].copy_(value)


@dataclass(frozen=True, slots=True)
class Base:
    """A model with what it was made of.

    Attributes:
        model: in evaluation mode.
        tokenizer: text <-> ids, a tokenizers.Tokenizer.
        revision: weights, tokenizer and templates as one unit.
        files: file name -> sha256 hex digest of all that was read.
        source: folder or repository, for people.
        note: what to know of it, `random weights` for a tiny one.
        tokenizer_file: where the tokenizer was read from.
    """

    model: Moondream
    tokenizer: Any
    revision: Revision
    files: Mapping[str, str]
    source: str
    note: str = ""
    tokenizer_file: Path | None = None

    @property
    def fingerprint(self) -> str:
        """One digest of all files: what an adapter was trained on."""
        return hashlib.sha256(json.dumps(dict(self.files), sort_keys=True).encode()).hexdigest()


def load(
    source: str | Path = "", *, device: str = "cpu", dtype: str = "fp32", revision: Revision = CURRENT
) -> Base:
    """Read a model from a folder, or from the hub where nothing or a repository is named.

    A folder holds `*.safetensors`, `tokenizer.json` and, for other sizes than Moondream 2's, `mai.json` with `config`
    and, for a tokenizer of its own, `templates`.

    Args:
        source: folder, `ORG/NAME` at the hub, or empty for the pinned revision.
        device: cpu, cuda or mps.
        dtype: fp32, bf16 or fp16.
        revision: which.

    Raises:
        WeightsError: files or tensors are missing; the hub cannot be reached or refuses; not enough memory.
        MissingExtraError: a package of the extra `vlm` is missing.
    """
    torch = require("torch", "vlm", "Moondream")
    safetensors = require("safetensors.torch", "vlm", "Moondream")
    tokenizers = require("tokenizers", "vlm", "Moondream")
    from mai.moondream.model import Moondream

    folder = Path(source) if source and Path(source).is_dir() else None
    if folder is None:
        folder, tokenizer_file = _from_hub(str(source) or revision.repo, revision)
    else:
        tokenizer_file = folder / "tokenizer.json"
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise WeightsError(f"{folder} holds no *.safetensors: it is no Moondream.")
    if not tokenizer_file.is_file():
        raise WeightsError(f"{tokenizer_file} is missing: get it from {revision.tokenizer_repo}.")
    config, note, own = _told(folder)
    if own is not None:
        revision = replace(revision, name=OWN, repo=str(source), tokenizer_repo=str(source), templates=own)
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if dtype not in kinds:
        raise WeightsError(f"A precision is fp32, bf16 or fp16, not '{dtype}'.")
    try:
        with torch.device("meta"):
            model = Moondream(config)
        model = model.to_empty(device=device).to(kinds[dtype])
        state: dict[str, Any] = {}
        for shard in shards:
            state |= safetensors.load_file(shard)
        fill(model, state, str(source) or revision.repo)
    except torch.OutOfMemoryError as error:
        raise WeightsError(
            f"There is not enough memory for Moondream in {dtype} on {device}: try bf16."
        ) from error
    except safetensors_error() as error:
        raise WeightsError(f"{folder} is damaged or a partial download: {error}. Fetch it again.") from error
    read = [*shards, tokenizer_file, *([folder / "mai.json"] if (folder / "mai.json").is_file() else [])]
    return Base(
        model.eval(),
        tokenizers.Tokenizer.from_file(str(tokenizer_file)),
        revision,
        {path.name: sha256_of(path) for path in read},
        str(source) or revision.repo,
        note,
        tokenizer_file,
    )


def safetensors_error() -> type[Exception]:
    """What safetensors raises for a damaged file."""
    error: type[Exception] = require("safetensors", "vlm", "Moondream").SafetensorError
    return error


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _told(folder: Path) -> tuple[MoondreamConfig, str, Templates | None]:
    """Sizes, note and, for a model with a tokenizer of its own, templates of a folder's `mai.json`."""
    from mai.moondream.model import MoondreamConfig

    path = folder / "mai.json"
    if not path.is_file():
        return MoondreamConfig(), "", None
    try:
        told = json.loads(path.read_text("utf-8"))
        own = told.get("templates")
        return config_of(told["config"]), str(told.get("note", "")), Templates.from_dict(own) if own else None
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}.") from error


def config_of(values: Mapping[str, Mapping[str, Any]]) -> MoondreamConfig:
    """`{"vision": {...}, "text": {...}}` -> sizes; what is not named is Moondream 2's.

    Raises:
        TypeError: an unknown key.
    """
    from mai.moondream.model import MoondreamConfig, TextConfig
    from mai.moondream.vision import VisionConfig

    for cls, part in ((VisionConfig, "vision"), (TextConfig, "text")):
        unknown = set(values.get(part, {})) - {f.name for f in fields(cls)}
        if unknown:
            raise TypeError(f"unknown sizes of the {part} part: {', '.join(sorted(unknown))}")
    return MoondreamConfig(VisionConfig(**values.get("vision", {})), TextConfig(**values.get("text", {})))


def _from_hub(repo: str, revision: Revision) -> tuple[Path, Path]:
    hub = require("huggingface_hub", "vlm", "Fetching Moondream")
    try:
        folder = hub.snapshot_download(
            repo, revision=revision.name, allow_patterns=["*.safetensors", "config.json"]
        )
        tokenizer = hub.hf_hub_download(revision.tokenizer_repo, "tokenizer.json")
    except Exception as error:  # the hub's library raises many kinds: no network, gated, no such revision
        first = str(error).strip().splitlines()
        raise WeightsError(
            f"Moondream ({repo}, revision {revision.name}) could not be fetched: {first[0] if first else error}. "
            "With it on disk, give its folder. If it is gated, log in with `hf auth login`."
        ) from error
    return Path(folder), Path(tokenizer)
