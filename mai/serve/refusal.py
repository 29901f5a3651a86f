"""How a request is refused: a status, a word for programs, a sentence for people."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from mai.types import Status

CODES: dict[str, int] = {
    "bad_request": 400,
    "no_key": 401,
    "not_allowed": 403,
    "not_found": 404,
    "wrong_method": 405,
    "upload_too_slow": 408,
    "body_too_large": 413,
    "too_many_files": 413,
    "no_image": 422,
    "wrong_value": 422,
    "url_refused": 422,
    "url_failed": 422,
    "queue_full": 429,
    "rate_limit": 429,
    "uploads_wait": 429,
    "client_share": 429,
    "failed": 500,
    "stopping": 503,
    "disk_full": 507,
    "waited_too_long": 504,
}
"""Word -> HTTP status; docs/serve.md says what each means."""

OF_STATUS: dict[Status, int] = {
    "ok": 200,
    "not_found": 422,
    "not_readable": 422,
    "not_a_file": 422,
    "empty": 422,
    "not_an_image": 422,
    "unsupported": 422,
    "truncated": 422,
    "too_large": 413,
    "timed_out": 504,
    "detector_failed": 422,
}
"""HTTP status of an answer about one image."""


class Refusal(Exception):  # noqa: N818  # an answer, not a fault
    """A request that is not served.

    Args:
        code: a key of CODES.
        message: what happened, the value, the next step.
        retry_s: seconds after which it may be tried again.
    """

    def __init__(self, code: str, message: str, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_s = code, message, retry_s

    @property
    def status(self) -> int:
        """The HTTP status."""
        return CODES[self.code]

    def response(self) -> Response:
        """As an answer."""
        headers = {} if self.retry_s is None else {"Retry-After": str(max(1, round(self.retry_s)))}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return json_response({"error": self.code, "message": self.message}, self.status, headers)


def json_response(
    values: dict[str, Any] | bytes, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """An answer in JSON; bytes are JSON already."""
    body = values if isinstance(values, bytes) else json.dumps(values, ensure_ascii=True).encode()
    return Response(body, status, headers, "application/json")
