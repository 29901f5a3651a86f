"""`mai weights push` against a hub on the loopback: the real client, the files as they lie, sentences when it fails."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from small_network import make_weights

pytest.importorskip("huggingface_hub", reason="uploading needs the extra 'vlm'")


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
        if self.path.startswith("/api/models/org/name/preupload/"):
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]  # fmt: skip
            return self._answer({"files": files})
        if self.path.startswith("/api/models/org/name/commit/"):
            for line in body.splitlines():
                told = json.loads(line)
                if told["key"] == "file":
                    self.received[told["value"]["path"]] = base64.b64decode(told["value"]["content"])
            commit = {"commitUrl": f"http://{self.headers['Host']}/org/name/commit/1", "commitOid": "1"}
            return self._answer({**commit, "success": True})
        return self._answer({}, 200 if "validate-yaml" in self.path else 404)

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


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    kind = type("OneHub", (Hub,), {"received": {}, "created": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", kind
    server.shutdown()
    server.server_close()


def push(endpoint: str, folder: Path, *more: str, token: str = "right") -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1",
                    "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}  # fmt: skip
    command = [sys.executable, "-m", "mai", "weights", "push", str(folder), *more]
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, timeout=180)


def test_a_folder_is_uploaded_as_it_lies(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    folder = make_weights(tmp_path, "resnet")
    endpoint, kind = hub
    done = push(endpoint, folder, "org/name")
    assert done.returncode == 0, done.stderr
    assert "/org/name/commit/1" in done.stdout
    assert "private" in json.dumps(
        kind.created[0]
    )  # the flag, or the visibility, by the version of the client
    assert kind.received == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_uploads_that_fail_say_why(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    folder = make_weights(tmp_path, "resnet")
    endpoint, kind = hub
    for arguments, token, told in (
        (("org/name",), "wrong", "could not be uploaded to org/name"),
        (("name",), "right", "A repository is ORG/NAME, not 'name'"),
    ):
        done = push(endpoint, folder, *arguments, token=token)
        assert done.returncode == 2
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    (folder / "model.onnx").write_bytes(b"another")
    done = push(endpoint, folder, "org/name")
    assert done.returncode != 0
    assert "damaged or was replaced" in done.stderr
    assert not kind.received
