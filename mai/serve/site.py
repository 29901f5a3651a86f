"""The page and its files, and the description of the interface for people: all from the package, nothing fetched."""

from __future__ import annotations

import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from mai.serve.refusal import Refusal

FOLDER = Path(__file__).parent / "page"

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}

REPORT_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox"
"""Content-Security-Policy of a report in which none of its own is found."""


def files() -> dict[str, tuple[bytes, str]]:
    """Path below the page's folder -> bytes and content type; read once, so that no request names a file."""
    return {
        path.relative_to(FOLDER).as_posix(): (path.read_bytes(), KINDS[path.suffix])
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in KINDS
    }


def policy_of(page: str) -> str:
    """The policy that a report's own head states, as a header, in a sandbox: it came from a file of others."""
    found = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"<>]*)">', page[:20_000])
    if found is None:
        return REPORT_POLICY
    return f"{html.unescape(found.group(1))}; frame-ancestors 'none'; sandbox allow-scripts allow-downloads"


def routes(app: FastAPI) -> None:
    """Add them."""
    known = files()
    tags = {name: f'"{hashlib.sha256(data).hexdigest()[:20]}"' for name, (data, _) in known.items()}

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return send(request, "index.html")

    @app.get("/static/{name:path}", include_in_schema=False)
    async def static(request: Request, name: str) -> Response:
        return send(request, name)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        from mai.serve.docs_page import docs_page

        return Response(docs_page(app.openapi()), media_type="text/html; charset=utf-8")

    @app.get("/robots.txt", include_in_schema=False)
    async def robots() -> Response:
        return Response("User-agent: *\nDisallow: /\n", media_type="text/plain")

    def send(request: Request, name: str) -> Response:
        if name not in known:
            raise Refusal("not_found", "There is no such file of the page.")
        data, kind = known[name]
        headers = {"Cache-Control": "no-cache", "ETag": tags[name]}
        if request.headers.get("if-none-match") == tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=kind)


def languages() -> dict[str, Any]:
    """Language -> its texts, as the page reads them."""
    return {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted((FOLDER / "i18n").glob("*.json"))
    }
