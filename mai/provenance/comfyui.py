"""ComfyUI's prompt graph -> prompt, negative prompt, model and seed of its sampler.

A node is `{"class_type": ..., "inputs": {name: value or [number of another node, output]}}`. The graph is
followed back from the sampler; it may be a circle, so each node is visited once.

Source: https://docs.comfy.org/specs/workflow_json
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mai.provenance import values
from mai.provenance.reading import Reading, json_object

Nodes = dict[str, dict[str, Any]]

_TEXTS = ("text", "prompt", "text_g", "t5xxl", "clip_l", "value", "string", "positive")
_NEGATIVE_TEXTS = ("text", "prompt", "text_g", "t5xxl", "clip_l", "value", "string", "negative")
_MODELS = ("ckpt_name", "unet_name", "model_name", "model")
_SEEDS = ("seed", "noise_seed")
_WAY_TO_PROMPT = ("positive", "guider", "conditioning", "conditioning_1", "text", "prompt", "text_embeds")
_MAX_VISITED = 2_000
_MAX_SAMPLERS = 8
"""Samplers asked for a prompt; a hostile graph may have thousands, each with a long way to go."""


def read(reading: Reading) -> tuple[str | None, str | None, str | None, int | None]:
    """Prompt, negative prompt, model and seed, each None if it is not found."""
    nodes = _nodes(reading)
    samplers = [name for name, node in nodes.items() if _is_sampler(node)][:_MAX_SAMPLERS]
    for sampler in samplers:
        prompt = _text(nodes, sampler, "positive", _TEXTS) or _text(nodes, sampler, "guider", _TEXTS)
        if prompt is not None:
            negative = _text(nodes, sampler, "negative", _NEGATIVE_TEXTS)
            if negative == prompt:  # a distilled model takes no negative prompt and is given the same twice
                negative = None
            return prompt, negative, _model(nodes, sampler), _seed(nodes, sampler)
    return (
        None,
        None,
        *((_model(nodes, samplers[0]), _seed(nodes, samplers[0])) if samplers else (None, None)),
    )


def _nodes(reading: Reading) -> Nodes:
    """The graph, wherever ComfyUI wrote it."""
    comments = ("exif:UserComment", "xmp:exif:UserComment")
    objects = [json_object(each.value) for each in reading.of("png:prompt", "png:workflow", *comments)]
    exif = ("exif:Model", "exif:Make", "exif:ImageDescription", "exif:DocumentName", *comments)
    objects += [
        json_object(text) for each in reading.of(*exif) if (text := values.prefixed("prompt", each.value))
    ]
    for outer in list(objects):
        inner = outer.get("prompt") if outer else None
        objects.append(
            json_object(inner) if isinstance(inner, str) else inner if isinstance(inner, dict) else None
        )
    for found in objects:
        if found is not None and values.holds_graph(found):
            return {
                name: node
                for name, node in found.items()
                if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
            }
    return {}


def _is_sampler(node: dict[str, Any]) -> bool:
    inputs = node["inputs"]
    return "latent_image" in inputs and (
        "positive" in inputs or "guider" in inputs or "Sampler" in str(node.get("class_type"))
    )


def _linked(value: Any) -> str | None:
    """The number of the node that an input comes from, None if the input is a value."""
    return str(value[0]) if isinstance(value, list) and len(value) == 2 else None


def _behind(
    nodes: Nodes, start: str | None, inputs: tuple[str, ...] | None = None
) -> Iterator[dict[str, Any]]:
    """Inputs of each node that is reached from one, itself first, nearest first.

    Args:
        nodes: the graph.
        start: number of the first node.
        inputs: names of the inputs to follow, where a node has any of them; all if None.
    """
    waiting, seen = [start], set[str]()
    while waiting and len(seen) < _MAX_VISITED:
        name = waiting.pop(0)
        if name is None or name in seen or name not in nodes:
            continue
        seen.add(name)
        found = nodes[name]["inputs"]
        yield found
        chosen = [found[key] for key in inputs or () if _linked(found.get(key))]
        waiting += [_linked(value) for value in chosen or found.values()]


def _text(nodes: Nodes, sampler: str, way: str, names: tuple[str, ...]) -> str | None:
    start = _linked(nodes[sampler]["inputs"].get(way))
    for inputs in _behind(nodes, start, _WAY_TO_PROMPT):
        texts = (inputs[name] for name in names if isinstance(inputs.get(name), str))
        for text in texts:
            return text.strip() or None
    return None


def _model(nodes: Nodes, sampler: str) -> str | None:
    inputs = nodes[sampler]["inputs"]
    for start in (inputs.get("model"), inputs.get("guider")):
        for found in _behind(nodes, _linked(start), ("model",)):
            for name in _MODELS:
                if isinstance(found.get(name), str):
                    return str(found[name])
    return None


def _seed(nodes: Nodes, sampler: str) -> int | None:
    inputs = nodes[sampler]["inputs"]
    for found in (inputs, *_behind(nodes, _linked(inputs.get("noise")))):
        for name in _SEEDS:
            value = found.get(name)
            if isinstance(value, list):
                value = next(
                    (v for f in _behind(nodes, _linked(value)) for v in f.values() if type(v) is int), None
                )
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
                return value
    return None
