"""What a generator noted about its work: prompt, negative prompt, model, seed. For people, never for the verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mai.provenance import comfyui, values
from mai.provenance.reading import Reading, clean, json_object
from mai.provenance.rules import PARAMETERS

MAX_PROMPT = 1_000
"""Characters of a prompt that are reported."""

MAX_NAME = 120
"""Characters of a model's name that are reported."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The generator's notes, as raw text; None where it left none.

    Attributes:
        prompt: what was asked for.
        negative_prompt: what was to be avoided.
        model: name of the weights.
        seed: of the random numbers.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    model: str | None = None
    seed: int | None = None

    def to_dict(self) -> dict[str, str | int]:
        """What is known, cut and without characters that do anything."""
        texts = {
            "prompt": self.prompt and clean(self.prompt, MAX_PROMPT),
            "negative_prompt": self.negative_prompt and clean(self.negative_prompt, MAX_PROMPT),
            "model": self.model and clean(self.model, MAX_NAME),
        }
        known: dict[str, str | int] = {name: text for name, text in texts.items() if text}
        if self.seed is not None:
            known["seed"] = self.seed
        return known


def read(reading: Reading, generators: set[str | None]) -> Generation:
    """The notes of the first of these generators that left any.

    Args:
        reading: the file's fields.
        generators: short names of the generators that the file declares.
    """
    for name, reader in _READERS.items():
        if name in generators:
            found = reader(reading)
            if found != Generation():
                return found
    return Generation()


def _a1111(reading: Reading) -> Generation:
    """`prompt\\nNegative prompt: ...\\nSteps: 20, Seed: 1, Model: name`."""
    text = next((each.value for each in reading.of(*PARAMETERS) if values.is_a1111(each.value)), "")
    line = values.settings_line(text)
    if line is None:
        return Generation()
    prompt, _, negative = text[: text.rfind(line)].partition("Negative prompt:")
    return Generation(
        prompt.strip() or None,
        negative.strip() or None,
        _setting(line, "Model") or _setting(line, "Model hash"),
        integer(_setting(line, "Seed")),
    )


def _setting(line: str, name: str) -> str | None:
    """The value of `name: value` in a line of settings; one with a comma or colon in it is quoted."""
    match = re.search(rf'(?:^|, ){re.escape(name)}: (?:"((?:[^"\\]|\\.)*)"|([^,]*))', line)
    return ((match[1] or match[2] or "").strip() or None) if match else None


def _fooocus(reading: Reading) -> Generation:
    found = _first_json(reading, *PARAMETERS)
    if found is None:
        return _a1111(reading)
    if "prompt" not in found:  # RuinedFooocus: `Prompt`, `Negative`
        return _settings(reading)
    return _of(found, ("prompt",), ("negative_prompt",), ("base_model",), ("seed",))


def _settings(reading: Reading) -> Generation:
    """A flat JSON object with names that many programs share, in any case and with blanks."""
    for each in reading.of(*PARAMETERS, "png:generation_data"):
        if values.is_settings(each.value) or values.is_json_with("use_stable_diffusion_model")(each.value):
            found = json_object(each.value) or {}
            small = {str(k).lower().replace(" ", "_"): v for k, v in list(found.items())[:500]}
            return _of(
                small,
                ("prompt", "positive_prompt"),
                ("negative_prompt", "negativeprompt", "negative"),
                (
                    "base_model",
                    "base_model_name",
                    "model",
                    "model_name",
                    "use_stable_diffusion_model",
                    "stable_diffusion_model",
                ),
                ("seed",),
            )
    return Generation()


def _easy_diffusion(reading: Reading) -> Generation:
    """One PNG text a setting, under either of its two sets of names; or JSON."""
    model = reading.first("png:use_stable_diffusion_model", "png:Stable Diffusion model")
    if model is None:
        return _settings(reading)
    return Generation(
        reading.first("png:prompt", "png:Prompt"),
        reading.first("png:negative_prompt", "png:Negative Prompt"),
        re.split(r"[\\/]", model)[-1],
        integer(reading.first("png:seed", "png:Seed")),
    )


def _draw_things(reading: Reading) -> Generation:
    found = _first_json(reading, "exif:UserComment", "xmp:exif:UserComment") or {}
    return _of(found, ("c",), ("uc",), ("model",), ("seed",))


def _swarmui(reading: Reading) -> Generation:
    found = (_first_json(reading, *PARAMETERS) or {}).get("sui_image_params")
    if not isinstance(found, dict):
        return Generation()
    return _of(found, ("prompt",), ("negativeprompt",), ("model",), ("seed",))


def _invokeai(reading: Reading) -> Generation:
    if found := _first_json(reading, "png:invokeai_metadata"):
        return _of(found, ("positive_prompt",), ("negative_prompt",), ("model",), ("seed",))
    if node := (_first_json(reading, "png:invokeai") or {}).get("node"):
        found = node if isinstance(node, dict) else {}
        prompt, negative = _bracketed(str(found.get("prompt") or ""))
        return Generation(prompt, negative, _text(found.get("model")), integer(found.get("seed")))
    if found := _first_json(reading, "png:sd-metadata"):
        image = found.get("image")
        image = image if isinstance(image, dict) else {}
        prompts = image.get("prompt")
        texts = (
            [str(each.get("prompt", "")) for each in prompts if isinstance(each, dict)]
            if isinstance(prompts, list)
            else [str(prompts or "")]
        )
        prompt, negative = _bracketed(", ".join(texts[:64]))
        return Generation(prompt, negative, _text(found.get("model_weights")), integer(image.get("seed")))
    dream = reading.first("png:Dream") or ""
    match = re.match(r'\s*"([^"]*)"(.*)', dream[:100_000], re.DOTALL)
    if match is None:
        return Generation()
    prompt, negative = _bracketed(match[1])
    seed = re.search(r"\s-S ?(\d+)", match[2])
    return Generation(prompt, negative, None, integer(seed[1]) if seed else None)


def _bracketed(text: str) -> tuple[str | None, str | None]:
    """InvokeAI's old way: what is to be avoided stands in [brackets] in the prompt."""
    negative = ", ".join(part.strip(" ,") for part in re.findall(r"\[([^\[\]]*)\]", text))
    prompt = re.sub(r"\[[^\[\]]*\]", "", text).strip(" ,")
    return prompt or None, negative or None


def _novelai(reading: Reading) -> Generation:
    texts = (
        _first_json(reading, "exif:UserComment", "xmp:exif:UserComment") or {}
    )  # a WebP has them all in one
    inner = json_object(texts["Comment"]) if isinstance(texts.get("Comment"), str) else None
    comment = _first_json(reading, "png:Comment", "stealth:Comment") or inner or {}
    prompt = (
        _text(comment.get("prompt"))
        or reading.first("png:Description", "stealth:Description")
        or _text(texts.get("Description"))
    )
    model = reading.first("png:Source", "stealth:Source") or _text(texts.get("Source"))
    return Generation(prompt, _text(comment.get("uc")), model, integer(comment.get("seed")))


def _midjourney(reading: Reading) -> Generation:
    """`prompt --v 6.1 --seed 7 Job ID: <UUID>`."""
    fields = reading.of("png:Description", "exif:ImageDescription", "xmp:dc:description")
    text = next((each.value for each in fields if values.is_job(each.value)), None)
    if text is None:
        return Generation()
    words = text[:100_000].rpartition("Job ID:")[0].strip()
    prompt = re.split(r"(?:^|\s)--[a-z]", words, maxsplit=1)[0].strip()
    version = re.search(r"\s--(?:v|version|niji) (\S+)", words)
    seed = re.search(r"\s--seed (\d+)", words)
    return Generation(
        prompt or None,
        None,
        f"Midjourney {version[1]}" if version else None,
        integer(seed[1]) if seed else None,
    )


def _iptc(reading: Reading) -> Generation:
    prefix = "xmp:Iptc4xmpExt:"
    names = (reading.first(prefix + "AISystemUsed"), reading.first(prefix + "AISystemVersionUsed"))
    return Generation(
        reading.first(prefix + "AIPromptInformation"), None, " ".join(filter(None, names)) or None
    )


def _of(found: Mapping[str, Any], *keys: tuple[str, ...]) -> Generation:
    """Prompt, negative prompt, model and seed by their keys in a flat JSON object."""
    prompt, negative, model, seed = (next((found[k] for k in row if k in found), None) for row in keys)
    if isinstance(model, dict):
        model = model.get("model_name") or model.get("name")
    return Generation(_text(prompt), _text(negative), _text(model), integer(seed))


def _first_json(reading: Reading, *keys: str) -> dict[str, Any] | None:
    return next((found for each in reading.of(*keys) if (found := json_object(each.value))), None)


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def integer(value: Any) -> int | None:
    """A whole number, also as text, of at most 64 bits (JSON readers lose longer ones); else None."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,20}\s*", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        return None
    return value


def _comfyui(reading: Reading) -> Generation:
    return Generation(*comfyui.read(reading))


_READERS = {
    "fooocus": _fooocus,
    "swarmui": _swarmui,
    "a1111": _a1111,
    "stealth-pnginfo": _a1111,
    "comfyui": _comfyui,
    "invokeai": _invokeai,
    "novelai": _novelai,
    "midjourney": _midjourney,
    "easy-diffusion": _easy_diffusion,
    "draw-things": _draw_things,
    "settings": _settings,
    "iptc-ai": _iptc,
}
