"""Captioners: Moondream, any image-to-text model of transformers, measured words, and captions that already exist.

moondream  moondream:FOLDER  tiny          ours
hf:ORG/NAME  hf:FOLDER                     any AutoModelForImageTextToText
words                                      what pixels measurably are (mai/pairs/words.py)
txt                                        `a.txt` or `a.jpg.txt` beside `a.jpg`
csv:FILE                                   columns file and caption
coco:FILE                                  COCO's captions JSON, the first of each picture
embedded                                   description in EXIF, IPTC or XMP
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from mai.errors import DataError, MaiError, UnknownNameError, UsageError, WeightsError, require
from mai.images import lists
from mai.pairs.plan import Planned

if TYPE_CHECKING:
    from mai.moondream.revisions import Length
    from mai.types import Pixels

NAMES = ("moondream", "tiny", "hf:ORG/NAME", "words", "txt", "csv:FILE", "coco:FILE", "embedded")
LENGTHS = ("short", "normal", "long")
TINY_TOKENS = 8

MAX_TOKENS = 200
"""Longest text of a model of transformers."""


class Captioner(Protocol):
    """A captioner at work."""

    @property
    def revision(self) -> str:
        """What was loaded."""
        ...

    @property
    def note(self) -> str:
        """What to know of it; empty if nothing."""
        ...

    def captions(self, rows: Sequence[Planned], pixels: Sequence[Pixels]) -> list[str]:
        """A caption of each picture, empty where there is none."""
        ...


def open_captioner(name: str, length: str = "normal", device: str = "cpu") -> Captioner:
    """Load a captioner.

    Args:
        name: see the head of this module.
        length: short, normal or long, for Moondream.
        device: for networks.

    Raises:
        UsageError: there is none of that name, or its file is none.
        WeightsError: weights are missing.
    """
    if length not in LENGTHS:
        raise UnknownNameError("caption length", length, LENGTHS)
    kind, _, rest = name.partition(":")
    if kind in {"moondream", "tiny"}:
        return MoondreamCaptions(rest, length, device, is_tiny=kind == "tiny")
    if kind == "hf" and rest:
        return HubCaptions(rest, device)
    if name == "words":
        return MeasuredWords()
    if name == "txt":
        return Sidecars()
    if kind == "csv" and rest:
        return Listed(_csv(Path(rest)), rest)
    if kind == "coco" and rest:
        return Listed(_coco(Path(rest)), rest)
    if name == "embedded":
        return Embedded()
    raise UnknownNameError("captioner", name, NAMES)


class MoondreamCaptions:
    """Moondream 2, ours; or the tiny one with random weights."""

    def __init__(self, folder: str, length: str, device: str, is_tiny: bool) -> None:
        from mai.moondream.chat import Chat
        from mai.moondream.load import load

        if is_tiny:
            from mai.moondream.tiny import build

            with tempfile.TemporaryDirectory() as place:
                base = load(build(Path(place)))
            self.revision = "random, seed 0"
        else:
            base = load(folder, device=device, dtype="bf16" if device == "cuda" else "fp32")
            self.revision = f"sha256 {base.fingerprint[:16]}"
        self.note = base.note
        self.chat = Chat(base, n_cached=1)
        self.length, self.is_tiny = cast("Length", length), is_tiny

    def captions(self, rows: Sequence[Planned], pixels: Sequence[Pixels]) -> list[str]:
        """See Captioner."""
        if not self.is_tiny:
            return self.chat.caption(list(pixels), self.length)
        from mai.moondream.tiny import WORDS

        # Random weights say ids that are no words, and do not know when to stop: their numbers pick the words.
        prompts = [list(self.chat.templates.caption[self.length])] * len(pixels)
        ids = self.chat.generate(self.chat.features(list(pixels)), prompts, TINY_TOKENS)
        return [" ".join(WORDS[i % len(WORDS)] for i in own or [0]) for own in ids]


class HubCaptions:
    """Any AutoModelForImageTextToText, asked for a description where it takes questions."""

    note = ""

    def __init__(self, name: str, device: str) -> None:
        torch = require("torch", "pairs", "Captions")
        transformers = require("transformers", "pairs", "Captions")
        self.device = device
        try:
            self.processor = transformers.AutoProcessor.from_pretrained(name, trust_remote_code=False)
            self.model = transformers.AutoModelForImageTextToText.from_pretrained(
                name,
                dtype=torch.bfloat16 if device == "cuda" else torch.float32,
                trust_remote_code=False,
            )
        except Exception as error:  # the hub's library raises many kinds
            words = str(error).strip().splitlines()
            raise WeightsError(
                f"The captioner {name} cannot be loaded: {words[0] if words else type(error).__name__}"
            ) from error
        self.model.to(device).eval()
        commit = getattr(self.model.config, "_commit_hash", None)
        self.revision = str(commit or f"folder {Path(name).name}")

    def captions(self, rows: Sequence[Planned], pixels: Sequence[Pixels]) -> list[str]:
        """See Captioner."""
        import torch
        from PIL import Image as PILImage

        out = []
        for one in pixels:
            image = PILImage.fromarray(one)
            if getattr(self.processor, "chat_template", None):
                parts = [
                    {"type": "image", "image": image},
                    {"type": "text", "text": "Describe this image in one paragraph."},
                ]
                inputs = self.processor.apply_chat_template(
                    [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=True,
                    return_dict=True, return_tensors="pt",
                )  # fmt: skip
            else:
                inputs = self.processor(images=image, return_tensors="pt")
            inputs = inputs.to(self.device)
            prompt = inputs.get("input_ids")
            with torch.inference_mode():
                tokens = self.model.generate(
                    **inputs, max_new_tokens=self._most_tokens(prompt), do_sample=False
                )
            n = prompt.shape[1] if prompt is not None and tokens.shape[1] > prompt.shape[1] else 0
            text = self.processor.batch_decode(tokens[:, n:], skip_special_tokens=True)[0]
            out.append(" ".join(text.split()))
        return out

    def _most_tokens(self, prompt: Any) -> int:
        """Tokens that may follow a prompt (1, T): a model that does not stop by itself runs out of positions."""
        positions = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        n_read = 1 if prompt is None else prompt.shape[1]
        return MAX_TOKENS if positions is None else max(1, min(MAX_TOKENS, positions - n_read))


class MeasuredWords:
    """Words for what pixels measurably look like, with the content that the set says."""

    revision, note = "1", "measured from the pixels, not described by a model"

    def captions(self, rows: Sequence[Planned], pixels: Sequence[Pixels]) -> list[str]:
        """See Captioner."""
        from mai.pairs.match import resized
        from mai.pairs.words import looks, sentence

        out = []
        for row, one in zip(rows, pixels, strict=True):
            height, width = one.shape[:2]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            out.append(
                sentence(row.content, looks(resized(one[top : top + side, left : left + side], 64, 64)))
            )
        return out


class Sidecars:
    """`a.txt` or `a.jpg.txt` beside `a.jpg`."""

    revision, note = "", "from a text file beside the image"

    def captions(self, rows: Sequence[Planned], pixels: Sequence[Pixels]) -> list[str]:
        """See Captioner."""
        return [_beside(Path(row.file)) for row in rows]


def _beside(path: Path) -> str:
    for name in (path.with_suffix(".txt"), path.with_name(path.name + ".txt")):
        if name.is_file():
            return " ".join(name.read_text("utf-8", errors="replace").split())
    return ""


@dataclass(frozen=True)
class Listed:
    """Captions from one file that lists them, by path or by bare file name.

    Attributes:
        by_name: name or path -> caption.
        revision: the file.
        note: what it is.
    """

    by_name: dict[str, str]
    revision: str
    note: str = "from a list of captions"

    def captions(self, rows: Sequence[Planned], pixels: Sequence[Pixels]) -> list[str]:
        """See Captioner."""
        found = []
        for row in rows:
            parts = Path(row.file).parts
            tails = ["/".join(parts[i:]) for i in range(len(parts))]
            found.append(
                next((self.by_name[tail] for tail in [row.file, *tails] if tail in self.by_name), "")
            )
        return found


def _csv(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = lists.records(file)
            names = reader.fieldnames or []
            file_column = next((n for n in ("file", "path", "file_name", "filename") if n in names), None)
            text_column = next((n for n in ("caption", "text", "prompt", "description") if n in names), None)
            if file_column is None or text_column is None:
                raise DataError(
                    f"{path} needs the columns file and caption; it has: {', '.join(names) or 'none'}."
                )
            return {row[file_column]: row[text_column] or "" for row in reader}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"The captions {path} cannot be read: {error}") from error


def _coco(path: Path) -> dict[str, str]:
    try:
        told: Any = json.loads(path.read_text("utf-8"))
        names = {image["id"]: str(image["file_name"]) for image in told["images"]}
        found: dict[str, str] = {}
        for one in told["annotations"]:
            if one["image_id"] in names:
                found.setdefault(names[one["image_id"]], " ".join(str(one["caption"]).split()))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path} is no captions JSON of COCO: {error!r}") from error
    return found


class Embedded:
    """The description that a file carries: EXIF ImageDescription, IPTC caption, XMP dc:description."""

    revision, note = "", "from the file's own metadata"

    def captions(self, rows: Sequence[Planned], pixels: Sequence[Pixels]) -> list[str]:
        """See Captioner."""
        return [_embedded(Path(row.file)) for row in rows]


def _embedded(path: Path) -> str:
    from PIL import Image as PILImage
    from PIL import IptcImagePlugin

    if not path.is_file():
        return ""
    try:
        with PILImage.open(path) as image:
            found: list[Any] = [image.getexif().get(0x010E)]
            iptc = IptcImagePlugin.getiptcinfo(image) or {}
            found.append(iptc.get((2, 120)))
            xmp = image.getxmp() if hasattr(image, "getxmp") else {}
            found += _xmp_descriptions(xmp)
    except Exception:  # metadata of others: what cannot be read says nothing
        return ""
    for value in found:
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(text, str) and text.strip(" \0"):
            return " ".join(text.replace("\0", " ").split())
    return ""


def _xmp_descriptions(value: Any, is_inside: bool = False) -> list[str]:
    """All texts below a key `description`."""
    if isinstance(value, dict):
        return [
            text
            for key, below in value.items()
            for text in _xmp_descriptions(
                below, is_inside or (key.lower() == "description" and "xmpmeta" not in key)
            )
            if not (is_inside and key in {"lang", "about"})
        ]
    if isinstance(value, list):
        return [text for one in value for text in _xmp_descriptions(one, is_inside)]
    return [value] if is_inside and isinstance(value, str) else []


def caption_all(
    captioner: Captioner, rows: Sequence[Planned], pixels: Sequence[Pixels]
) -> list[tuple[str, str | None]]:
    """Captions with, where a picture's captioner failed, the sentence why.

    A batch that fails, or that memory is too short for, is tried one by one.
    """
    try:
        return [(text, None) for text in captioner.captions(rows, pixels)]
    except Exception as error:  # of many libraries; the row says what it was
        if isinstance(error, MaiError | KeyboardInterrupt):
            raise
        if len(rows) > 1:
            return [
                one
                for i in range(len(rows))
                for one in caption_all(captioner, rows[i : i + 1], pixels[i : i + 1])
            ]
        words = str(error).strip().splitlines()
        return [("", f"{type(error).__name__}: {words[0][:200] if words else 'no message'}")]
