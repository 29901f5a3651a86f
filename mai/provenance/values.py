"""What a field's text must be for a rule to hold: predicates, each named after what it asks."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

from mai.provenance.reading import json_object
from mai.provenance.xmp import AIGC_NAMES

Predicate = Callable[[str], bool]

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
UUID = re.compile(_UUID)
_STEPS = re.compile(r"\bSteps:[ \t]{0,3}\d")
_SAMPLER = re.compile(r"\b(?:Sampler|CFG scale):[ \t]{0,3}\S")
_BEGINS = re.compile(r"\s*Steps:[ \t]{0,3}\d+[ \t]{0,3},")
_KNOWN = re.compile(
    r"\b(Steps|Sampler|Schedule type|CFG scale|Seed|Size|Model hash|Model|Version):[ \t]{0,3}\S"
)
_LEAST_KNOWN = 3
_JOB = re.compile(rf"Job ID:[ \t]{{0,3}}{_UUID}\s*\Z")
_GROK = re.compile(r"\s*Signature:\s*[A-Za-z0-9+/=_-]{64,}(?:\s|\Z)")
_DREAM = re.compile(r"\s-s ?\d+\b.*\s-(?:S|W|H|C|A) ?\S", re.DOTALL)
_SD_METADATA = ("model_weights", "app_id", "model_hash")
_MAX_LINE = 100_000
_MAX_NAME = 1000
"""Characters of a program's name with its version and address."""


def anything(value: str) -> bool:
    """Any text that is not blank."""
    return bool(value.strip())


def is_one_of(*texts: str) -> Predicate:
    """Exactly one of these texts."""
    known = frozenset(texts)
    return lambda value: value.strip() in known


def fits(pattern: str) -> Predicate:
    """The whole text, without blanks around it, fits a regular expression; what is longer than a name does not."""
    compiled = re.compile(pattern)
    return lambda value: len(value) < _MAX_NAME and compiled.fullmatch(value.strip()) is not None


def is_json_with(*keys: str) -> Predicate:
    """A JSON object with one of these keys."""

    def holds(value: str) -> bool:
        found = json_object(value)
        return found is not None and any(key in found for key in keys)

    return holds


_PROMPTS = frozenset({"prompt", "positive_prompt", "positiveprompt"})
_SETTINGS = frozenset(
    {
        *("seed", "steps", "num_inference_steps", "sampler", "sampler_name", "scheduler", "scheduler_name"),
        *("cfg", "cfg_scale", "guidance", "guidance_scale", "negative_prompt", "negativeprompt", "negative"),
        *("base_model", "base_model_name", "model", "model_name", "use_stable_diffusion_model", "loras"),
        *("clip_skip", "denoising_strength", "stable_diffusion_model", "vae", "vae_model"),
    }
)
"""Names of a diffusion program's settings, in small letters with _ for blanks."""
_LEAST_SETTINGS = 3


def _named(found: dict[str, Any]) -> set[str]:
    return {str(key).strip().lower().replace(" ", "_").replace("-", "_") for key in list(found)[:500]}


def is_json_naming(key: str, pattern: str) -> Predicate:
    """A JSON object whose text under a key fits a regular expression."""
    compiled = re.compile(pattern)

    def holds(value: str) -> bool:
        found = json_object(value)
        text = found.get(key) if found else None
        return isinstance(text, str) and compiled.fullmatch(text[:200]) is not None

    return holds


def is_settings(value: str) -> bool:
    """A JSON object with a prompt and three settings of diffusion programs, as many of them write."""
    found = json_object(value)
    if found is None:
        return False
    names = _named(found)
    return bool(names & _PROMPTS) and len(names & _SETTINGS) >= _LEAST_SETTINGS


def is_draw_things(value: str) -> bool:
    """Draw Things: JSON with the prompt as `c` and settings of its sampler."""
    found = json_object(value)
    return (
        found is not None
        and isinstance(found.get("c"), str)
        and len(_named(found) & {*_SETTINGS, "scale", "uc"}) >= 3
    )


def is_json(value: str) -> bool:
    """A JSON object with anything in it."""
    return bool(json_object(value))


def settings_line(value: str) -> str | None:
    """The line of settings that A1111 writes below prompt and negative prompt, None if there is none."""
    for line in reversed(value.splitlines()):
        line = line[:_MAX_LINE]
        if _STEPS.search(line) and _SAMPLER.search(line):
            return line
    return None


def is_a1111_comment(value: str) -> bool:
    """The same in a field that people write in too: a line that begins with it, or three of its settings in one."""
    line = settings_line(value)
    if line is None:
        return False
    return _BEGINS.match(line) is not None or len(set(_KNOWN.findall(line))) >= _LEAST_KNOWN


def is_a1111(value: str) -> bool:
    """`Steps: 20, Sampler: Euler a, CFG scale: 7, ...` in one line."""
    return settings_line(value) is not None


def is_parameters(value: str) -> bool:
    """Generation parameters as A1111's text or as JSON."""
    return is_json(value) or is_a1111(value)


def is_graph(value: str) -> bool:
    """ComfyUI's prompt: JSON of numbered nodes, each with a `class_type`."""
    return holds_graph(json_object(value))


def is_workflow(value: str) -> bool:
    """ComfyUI's workflow: JSON with lists of nodes and of what links them; or its prompt under that name."""
    return _is_workflow(json_object(value))


def _is_workflow(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    linked = any(name in found for name in ("links", "last_node_id", "state", "definitions"))
    return (isinstance(found.get("nodes"), list) and linked) or holds_graph(found)


def holds_graph(nodes: Any) -> bool:
    """Numbered nodes, each with a `class_type`."""
    return isinstance(nodes, dict) and any(
        isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in nodes.values()
    )


def is_comfyui(value: str) -> bool:
    """A graph alone, or an object with a graph as `prompt` or a workflow as `workflow`, as nodes that save write."""
    found = json_object(value)
    if found is None:
        return False
    inner = [
        json_object(part) if isinstance(part, str) else part
        for part in map(found.get, ("prompt", "workflow"))
    ]
    return holds_graph(found) or holds_graph(inner[0]) or _is_workflow(inner[1])


def prefixed(name: str, value: str) -> str | None:
    """What follows `name:` in a text, as ComfyUI writes into EXIF; None if the text begins otherwise."""
    head, mark, rest = value.partition(":")
    return rest.strip() if mark and head.strip().lower() == name else None


def is_prefixed_comfyui(value: str) -> bool:
    """`prompt:{...}` or `workflow:{...}` with what these hold."""
    prompt, workflow = prefixed("prompt", value), prefixed("workflow", value)
    return (prompt is not None and is_graph(prompt)) or (workflow is not None and is_workflow(workflow))


def is_sd_metadata(value: str) -> bool:
    """InvokeAI's notes before version 3: an object for the picture, or what names the weights."""
    found = json_object(value) or {}
    return isinstance(found.get("image"), dict) or not found.keys().isdisjoint(_SD_METADATA)


def is_dream(value: str) -> bool:
    """InvokeAI's old command line: `"a cat" -s 50 -S 123 -W 512 ...`."""
    return len(value) < _MAX_LINE and value.lstrip().startswith('"') and _DREAM.search(value) is not None


def is_job(value: str) -> bool:
    """A description that ends with Midjourney's `Job ID: <UUID>`."""
    return _JOB.search(value[-200:]) is not None


def is_uuid(value: str) -> bool:
    """A UUID and nothing else."""
    return UUID.fullmatch(value.strip()) is not None


def is_grok_signature(value: str) -> bool:
    """`Signature: ` and at least 64 characters of base64."""
    return len(value) < _MAX_LINE and _GROK.match(value) is not None


def aigc(value: str, is_own_field: bool = True) -> dict[str, Any] | None:
    """China's label as a dictionary, bare or inside `{"AIGC": ...}`; None without one of its fields.

    Args:
        value: JSON, perhaps with HTML escapes, perhaps a JSON text inside JSON.
        is_own_field: the field is the label's alone, so that `Label` without more is enough.
    """
    found = json_object(value) or json_object(html.unescape(value[: 1 << 20]))
    if found is None:
        return None
    if isinstance(found.get("AIGC"), str):
        found = json_object(found["AIGC"])
        is_own_field = True
    elif isinstance(found.get("AIGC"), dict):
        found, is_own_field = found["AIGC"], True
    names = AIGC_NAMES if is_own_field else AIGC_NAMES[1:]
    return found if found is not None and any(name in found for name in names) else None


def _declares_ai(label: dict[str, Any] | None) -> bool:
    """GB 45438-2025, annex E: Label 1 generated, 2 perhaps, 3 suspected; none is written for other pictures."""
    return label is not None and str(label.get("Label", "1")).strip().lower() not in (
        "0",
        "",
        "false",
        "none",
    )


def is_aigc(value: str) -> bool:
    """China's label in a field of its own."""
    return _declares_ai(aigc(value))


def is_aigc_comment(value: str) -> bool:
    """China's label in a field that others use too."""
    return _declares_ai(aigc(value, is_own_field=False))


def is_galaxy_edit(value: str) -> bool:
    """Samsung's editor notes a `genAIType` that is not zero, at the top or in a JSON text inside."""
    return _has_ai_type(json_object(value), 0)


def _has_ai_type(value: Any, depth: int) -> bool:
    if depth > 4:
        return False
    if isinstance(value, str):
        return _has_ai_type(json_object(value), depth + 1)
    if isinstance(value, list):
        return any(_has_ai_type(each, depth + 1) for each in value[:100])
    if not isinstance(value, dict):
        return False
    kind = str(value.get("genAIType", 0)).strip()[:20]
    if re.fullmatch(r"-?\d+", kind) and int(kind) != 0:
        return True
    return any(_has_ai_type(each, depth + 1) for each in value.values())
