"""As much of the Hugging Face hub as an upload needs, on the loopback."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a commit needs."""

    received: dict[str, bytes]
    created: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        if self.headers.get("Authorization") != "Bearer right":
            return self._answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            return self._answer({"url": f"http://{self.headers['Host']}/org/name", "id": "org/name"})
        kind, _, rest = self.path.removeprefix("/api/").partition("/org/name/")
        if kind not in ("models", "datasets"):
            return self._answer({}, 200 if "validate-yaml" in self.path else 404)
        if rest.startswith("preupload/"):
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]  # fmt: skip
            return self._answer({"files": files})
        if rest.startswith("commit/"):
            for line in body.splitlines():
                told = json.loads(line)
                if told["key"] == "file":
                    self.received[told["value"]["path"]] = base64.b64decode(told["value"]["content"])
            commit = {"commitUrl": f"http://{self.headers['Host']}/org/name/commit/1", "commitOid": "1"}
            return self._answer({**commit, "success": True})
        return self._answer({}, 404)

    def do_GET(self) -> None:
        self._answer({"error": "Repository not found"}, 404)

    def _chunk(self) -> bytes:
        n = int(self.rfile.readline(), 16)
        data = self.rfile.read(n)
        self.rfile.readline()
        return data

    def _answer(self, values: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        del args


@contextmanager
def serving() -> Iterator[tuple[str, type[Hub]]]:
    kind = type("OneHub", (Hub,), {"received": {}, "created": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", kind
    finally:
        server.shutdown()
        server.server_close()


def surroundings(endpoint: str, token: str = "right") -> dict[str, str]:
    """The environment in which the real client talks to it."""
    return {**os.environ, "HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}  # fmt: skip
