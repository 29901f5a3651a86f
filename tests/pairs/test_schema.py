"""The shards are a Hugging Face data set."""

from __future__ import annotations

import json

import datasets

from mai.pairs import store


def test_the_schema_is_what_hugging_face_would_write() -> None:
    image, value = datasets.Image(), datasets.Value

    def feature(kind: str | dict[str, str]) -> object:
        if isinstance(kind, dict):
            return {name: value(inner) for name, inner in kind.items()}
        return image if kind == "image" else value(kind)

    wanted = datasets.Features({name: feature(kind) for name, kind in store._FIELDS.items()}).arrow_schema
    ours = store.pair_schema()
    assert ours.equals(wanted)
    assert json.loads(ours.metadata[b"huggingface"]) == json.loads(wanted.metadata[b"huggingface"])
