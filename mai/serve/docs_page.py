"""The interface described for people, from its OpenAPI description: plain HTML, no script, nothing fetched."""

from __future__ import annotations

import html
import json
from typing import Any

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>MAI: the interface for programs</title><link rel="stylesheet" href="static/style.css">
<link rel="icon" href="static/icon.svg"></head><body class="docs">
"""


def docs_page(described: dict[str, Any]) -> str:
    """The whole page.

    Args:
        described: what /openapi.json holds.
    """
    told = described["info"]
    parts = [
        HEAD,
        '<header class="top"><a class="brand" href="./"><img src="static/icon.svg" alt="" width="28" height="28">'
        "<span>MAI</span></a></header><main>",
        f"<h1>The interface for programs</h1><p>{_text(told['description'])}</p>",
        f"<p>Version {_text(told['version'])}. For tools that generate clients: "
        '<a href="openapi.json">openapi.json</a>, OpenAPI 3.1.</p>',
        "<h2>Try it</h2>",
        _code('curl --data-binary @photo.jpg "http://127.0.0.1:8000/v1/scan?name=photo.jpg"'),
        _code("curl -F file=@one.jpg -F file=@two.jpg http://127.0.0.1:8000/v1/scan"),
        _code("curl -F file=@photo.jpg 'http://127.0.0.1:8000/v1/explain?format=html' > report.html"),
    ]
    if described.get("security"):
        parts.append(
            "<p>Every call but the health checks carries a key: <code>Authorization: Bearer KEY</code>.</p>"
        )
    for path, methods in described["paths"].items():
        parts += [_operation(path, method, operation) for method, operation in methods.items()]
    parts.append("</main></body></html>\n")
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    name = operation.get("operationId", path)
    parts = [
        f'<section class="card" aria-labelledby="{_text(name)}"><h2 id="{_text(name)}">'
        f"<code>{method.upper()} {_text(path)}</code></h2>",
        *(f"<p>{_text(part)}</p>" for part in operation.get("description", "").split("\n\n")),
    ]
    rows = [
        (entry["name"], f"{entry['in']}: {entry.get('description', '')}")
        for entry in operation.get("parameters", [])
    ]
    body = operation.get("requestBody")
    if body:
        rows.append(("body", f"{body.get('description', '')} As {', '.join(body['content'])}."))
    parts.append(_list(rows))
    answers = [(status, answer.get("description", "")) for status, answer in operation["responses"].items()]
    parts.append(f"<h3>Answers</h3>{_list(answers)}")
    for answer in operation["responses"].values():
        for told in answer.get("content", {}).values():
            if "example" in told:
                example = _code(json.dumps(told["example"], indent=2))
                parts.append(f"<details><summary>Example</summary>{example}</details>")
    parts.append("</section>")
    return "".join(parts)


def _list(rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    return (
        '<dl class="facts">' + "".join(f"<dt>{_text(n)}</dt><dd>{_text(v)}</dd>" for n, v in rows) + "</dl>"
    )


def _code(text: str) -> str:
    return f'<pre tabindex="0"><code>{_text(text)}</code></pre>'


def _text(value: object) -> str:
    """As HTML; `words` between backticks become code."""
    parts = html.escape(str(value)).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
