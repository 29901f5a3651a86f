"""The description of the interface for programs: OpenAPI 3.1, with the published schemas of rows and cases in it."""

from __future__ import annotations

import copy
import json
from typing import Any

from mai import __version__
from mai.report import case, schema
from mai.serve.refusal import CODES

DESCRIPTION = """MAI says whether an image is likely AI-generated, and shows the evidence. A verdict is a signal, not
proof.

An answer about one image is a row `mai.record/1`, the same as `mai scan --jsonl` writes. Whatever cannot be done is
answered with a status and a JSON object that has a `message`: a sentence for people."""

EXAMPLE_RECORD: dict[str, Any] = {
    "schema": "mai.record/1",
    "path": "harbour.jpg",
    "status": "ok",
    "label": "inconclusive",
    "edited": None,
    "score": 0.6406,
    "reason": "low_evidence",
    "thresholds": {"synthetic": 0.883, "fpr": 0.01, "authentic": 0.156, "fnr": 0.05},
    "evidence": [
        {
            "detector": "pixel",
            "weights": "pixel_v1_2",
            "status": "ok",
            "logit": 0.41,
            "score": 0.6406,
            "note": "",
            "details": {},
        }
    ],
    "image": {
        "format": "JPEG",
        "width": 1152,
        "height": 864,
        "bytes": 181_233,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    },
    "message": None,
    "seconds": {"read": 0.001, "decode": 0.01, "pixel": 0.012},
}

ERROR: dict[str, Any] = {
    "type": "object",
    "title": "Error",
    "description": "Why a request was not served.",
    "required": ["error", "message"],
    "properties": {
        "error": {"type": "string", "enum": sorted(CODES), "description": "A word for programs."},
        "message": {
            "type": "string",
            "description": "A sentence: what happened, the value, the next step.",
        },
    },
}


def schemas() -> dict[str, Any]:
    """Name -> JSON Schema of what answers hold."""
    return {
        **_flat("Record", schema.schema()),
        **_flat("Case", case.schema()),
        "Records": {
            "type": "object",
            "title": "Records",
            "required": ["records"],
            "properties": {"records": {"type": "array", "items": ref("Record")}},
        },
        "Error": ERROR,
    }


def ref(name: str) -> dict[str, str]:
    """A reference to a schema of this description."""
    return {"$ref": f"#/components/schemas/{name}"}


def _flat(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """A published schema with its parts beside it, since references into it would not be found by many tools."""
    whole = copy.deepcopy(found)
    parts = whole.pop("$defs", {})
    for key in ("$schema", "$id"):
        whole.pop(key, None)
    text = json.dumps({name: whole, **{f"{name}_{part}": value for part, value in parts.items()}})
    text = text.replace('"#/$defs/', f'"#/components/schemas/{name}_')
    text = text.replace('"urn:mai:record:1"', '"#/components/schemas/Record"')
    flat: dict[str, Any] = json.loads(text)
    flat[name]["title"] = name
    return flat


def files_body(what: str, examples: bool = True, urls: bool = False, many: bool = True) -> dict[str, Any]:
    """A request body: a form of files, or the bytes of one."""
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    value = {"type": "array", "items": file, "minItems": 1} if many else file
    content: dict[str, Any] = {
        "multipart/form-data": {
            "schema": {"type": "object", "required": ["file"], "properties": {"file": value}}
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }
    if urls:
        content["application/json"] = {
            "schema": {
                "type": "object",
                "required": ["urls"],
                "properties": {
                    "urls": {
                        "type": "array",
                        "items": {"type": "string", "format": "uri"},
                        "minItems": 1,
                        "description": "Addresses of pictures; only where the service was started with --allow-urls.",
                    }
                },
            }
        }
    return {"requestBody": {"required": True, "description": what, "content": content}}


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Answers that refuse, by status."""
    told = {
        401: "No key, or one that is not known.",
        403: "Another site's page asked, or the service is not reached under that name.",
        404: "There is no such thing, or it is somebody else's.",
        408: "The upload stopped, or came too slowly.",
        413: "The body, a file, the picture or the number of files passes a limit.",
        422: "Not a picture that can be judged, or a value that cannot be.",
        429: "Too much is waiting or being sent, by all or by you; `Retry-After` says when to try again.",
        503: "A worker died on this picture twice, or the service is stopping.",
        504: "The picture took longer than the service gives it.",
        507: "The service's disk has no room for the upload.",
    }
    return {
        code: {
            "description": told[code],
            "content": {"application/json": {"schema": ref("Error")}},
        }
        for code in codes
    }


def image_errors(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Answers of what looks at one picture: a row, or what else it makes, with its status; or an error."""
    either: dict[str, Any] = {
        "application/json": {"schema": {"anyOf": [*map(ref, kinds), ref("Record"), ref("Error")]}}
    }
    if "Case" in kinds:  # the report of a picture that was not judged says so
        either["text/html"] = {"schema": {"type": "string"}}
    found = errors(401, 403, 408, 413, 422, 429, 503, 504, 507)
    for code in (413, 422, 503, 504):
        found[code]["content"] = either
    return found


def finish(description: dict[str, Any], has_keys: bool) -> dict[str, Any]:
    """Put in what FastAPI does not know."""
    parts = description.setdefault("components", {})
    parts["schemas"] = {**parts.get("schemas", {}), **schemas()}
    for name in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(name, None)
    for methods in description["paths"].values():
        for operation in methods.values():
            told = (
                operation.get("responses", {}).get("422", {}).get("content", {}).get("application/json", {})
            )
            if told.get("schema", {}).get("$ref", "").endswith("HTTPValidationError"):
                told["schema"] = ref("Error")
    if has_keys:
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        description["security"] = [{"key": []}]
    description["info"]["version"] = __version__
    return description
