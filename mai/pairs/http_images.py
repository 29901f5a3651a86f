"""A hosted generator behind an OpenAI-style images endpoint: POST {model, prompt, size, n} -> base64 or an address.

The key comes from the environment and is never stored. Rate limits (429) and faults of the server (5xx) are tried again
with growing pauses, or after the time that the server names; refusals of a prompt are a row's status.
"""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from mai.errors import ImageError, UsageError
from mai.pairs.generate import Made, Request
from mai.pairs.registry import Entry

TRIES = 6
TIMEOUT_S = 180.0
MAX_BYTES = 64 * 2**20
"""Of one answer."""

PAUSE_S = 1.0
"""Before the second try; doubled each time."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key is not carried to wherever an answer points."""

    def redirect_request(self, *_: Any) -> None:
        return None


class HttpImages:
    """An HTTP API at work.

    Args:
        entry: with url, model (`id`), name of the key's variable, price and rate limit.

    Raises:
        UsageError: the key is not in the environment, or the address is none.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry, self.revision = entry, entry.id
        self.key = os.environ.get(entry.key_variable, "") if entry.key_variable else ""
        if entry.key_variable and not self.key:
            raise UsageError(
                f"{entry.name} needs a key: put it into the environment as {entry.key_variable}."
            )
        if not _is_safe(entry.url):
            raise UsageError(f"{entry.name}: the url is to begin with https://, not '{entry.url[:40]}'.")
        self.cost = 0.0
        self.n_requests = self.n_retries = 0
        self._last = 0.0
        self._open = urllib.request.build_opener(_NoRedirect).open

    def make(self, requests: Sequence[Request]) -> list[Made]:
        """See Backend."""
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Made:
        body = {
            **self.entry.arguments,
            "model": self.entry.id,
            "prompt": request.caption,
            "n": 1,
            "size": f"{request.width}x{request.height}",
        }
        status, answer = self._post(json.dumps(body).encode())
        if status != 200:
            said = _said(answer)
            refused = status == 400 and any(
                word in said.lower() for word in ("safety", "policy", "moderation")
            )
            return Made(None, "refused" if refused else "generator_failed", f"HTTP {status}: {said}")
        self.cost += self.entry.price  # it is paid for, whatever comes of it
        try:
            item = json.loads(answer)["data"][0]
            data = base64.b64decode(item["b64_json"]) if item.get("b64_json") else self._get(item["url"])
            from mai.images.decode import decode, from_bytes

            pixels = decode(from_bytes(data)).pixels
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            OSError,
            HTTPException,
            ImageError,
        ) as error:
            return Made(None, "generator_failed", f"The answer holds no picture: {error}", self.entry.price)
        return Made(pixels, cost=self.entry.price)

    def _post(self, body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        pause = PAUSE_S
        for left in reversed(range(TRIES)):
            self._wait()
            asked = urllib.request.Request(self.entry.url, body, headers)
            self.n_requests += 1
            try:
                with self._open(asked, timeout=TIMEOUT_S) as answer:
                    return 200, answer.read(MAX_BYTES)
            except urllib.error.HTTPError as error:
                if (error.code != 429 and error.code < 500) or not left:
                    return error.code, error.read(4096)
                told = error.headers.get("Retry-After", "")
                wait = float(told) if told.replace(".", "", 1).isdigit() else pause
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                if not left:
                    return 0, str(error).encode()
                wait = pause
            self.n_retries += 1
            time.sleep(min(wait, 120.0))
            pause *= 2
        raise AssertionError("unreachable")

    def _wait(self) -> None:
        """Hold the rate limit."""
        if self.entry.per_minute:
            due = self._last + 60 / self.entry.per_minute
            time.sleep(max(0.0, due - time.monotonic()))
        self._last = time.monotonic()

    def _get(self, url: str) -> bytes:
        """A picture that the answer only points to; the key is not sent along."""
        if not _is_safe(url):
            raise ValueError(f"the picture's address is '{url[:40]}'")
        with self._open(url, timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read(MAX_BYTES)
        return data


def _is_safe(url: str) -> bool:
    """Encrypted, or this machine: `http://localhost.example` and `http://localhost@example` are others."""
    try:
        told = urlsplit(url)
        return told.scheme == "https" or (
            told.scheme == "http" and told.hostname in ("127.0.0.1", "localhost")
        )
    except ValueError:
        return False


def _said(answer: bytes) -> str:
    """What a server said of an error, in one line."""
    text = answer.decode("utf-8", "replace")
    try:
        told = json.loads(text)
        text = str(told["error"]["message"])
    except (ValueError, LookupError, TypeError):
        pass
    return " ".join(text.split())[:200] or "no message"
