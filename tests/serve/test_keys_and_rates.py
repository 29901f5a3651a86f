"""Who may come in, and how much of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running_service import picture, serving

from mai.errors import UsageError
from mai.serve import keys
from mai.serve.guard import Guard
from mai.serve.keys import Keys
from mai.serve.limits import Rate
from mai.serve.refusal import Refusal
from mai.serve.settings import ServeSettings


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mai", "serve", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_new_key_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    done = run("--keys", str(file), "--new-key", "desk")
    assert done.returncode == 0
    key = done.stdout.strip()
    assert key.startswith("mai_")
    assert len(key) > 40
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    assert Keys(file).owner(key) == "desk"
    assert Keys(file).owner(key[:-1]) is None
    assert Keys(file).owner("") is None
    again = run("--keys", str(file), "--new-key", "desk")
    assert again.returncode == 2
    assert "desk" in again.stderr
    assert run("--new-key", "desk").returncode == 2
    assert run("--keys", str(file), "--new-key", "a b").returncode == 2


def test_a_key_is_added_behind_a_last_line_without_an_end(tmp_path: Path) -> None:
    """As an editor leaves it that was used to revoke another."""
    file = tmp_path / "keys"
    first = keys.make(file, "a")
    file.write_text(file.read_text().rstrip("\n"))
    second = keys.make(file, "b")
    assert [Keys(file).owner(key) for key in (first, second)] == ["a", "b"]


def test_a_deleted_line_revokes_a_key_while_the_service_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "LOOK_AGAIN_S", 0.0)
    file = tmp_path / "keys"
    first, second = keys.make(file, "a"), keys.make(file, "b")
    known = Keys(file)
    assert (known.owner(first), known.owner(second)) == ("a", "b")
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("a ")))
    assert (known.owner(first), known.owner(second)) == (None, "b")
    file.unlink()
    assert known.owner(second) is None


@pytest.mark.parametrize("text", ["", "# only a comment\n", "name nohash 2026\n", "\xff"])
def test_a_key_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="keys"):
        Keys(file)


def test_listening_beyond_this_machine_needs_keys_or_a_word() -> None:
    with pytest.raises(UsageError, match="--no-auth"):
        ServeSettings(host="0.0.0.0")
    with pytest.raises(UsageError, match="exclude"):
        ServeSettings(keys=Path("x"), is_open=True)
    with pytest.raises(UsageError, match="--max-files"):
        ServeSettings(queue=3)
    assert ServeSettings(host="0.0.0.0", is_open=True)
    assert ServeSettings(host="::1")
    done = run("--host", "0.0.0.0")
    assert done.returncode == 2
    assert "--keys" in done.stderr


def test_a_rate_is_a_minutes_worth_and_fills_again() -> None:
    rate = Rate(60)
    for _ in range(60):
        rate.take("a", 1, now=100.0)
    with pytest.raises(Refusal) as refused:
        rate.take("a", 2, now=100.0)
    assert refused.value.status == 429
    assert refused.value.retry_s == pytest.approx(2)
    rate.take("b", 60, now=100.0)
    with pytest.raises(Refusal):
        rate.take("a", 2, now=101.5)
    rate.take("a", 2, now=102.0)
    Rate(None).take("a", 10**9)
    rate.take("c", 500, now=100.0)  # more than a minute's worth is let in when the bucket is full


@pytest.mark.parametrize("host", ["x", "x/static", "x/v1/limits?", "x/#", "["])
def test_a_host_header_opens_no_guarded_path(host: str, tmp_path: Path) -> None:
    """Older Starlettes put it before the path of `request.url`: `x/static` hid /v1/ from the guard."""
    file = tmp_path / "keys"
    keys.make(file, "a")
    statuses: list[int] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    guard = Guard(inside, ServeSettings(host="0.0.0.0", keys=file), Keys(file), lambda *told: None)
    scope = {
        **{"type": "http", "method": "GET", "scheme": "http", "path": "/v1/detectors", "query_string": b""},
        **{"server": ("127.0.0.1", 80), "client": ("192.0.2.1", 1), "headers": [(b"host", host.encode())]},
    }
    asyncio.run(guard(scope, receive, send))
    assert statuses[0] == 401


def test_keys_rates_and_owners_over_the_wire(tmp_path: Path, weights: Path) -> None:
    """One service with everything on: keys, a rate, another host's name, jobs of two owners."""
    file = tmp_path / "keys"
    one, two = keys.make(file, "one"), keys.make(file, "two")
    jpeg = picture()
    with serving(
        *(
            "--workers",
            "1",
            "--weights",
            str(weights),
            "--keys",
            str(file),
            "--rate",
            "5",
            "--host",
            "0.0.0.0",
        ),
        *("--allow-host", "mai.example.org", "--data", str(tmp_path / "data")),
        log=tmp_path / "log",
    ) as service:
        ask = service.client

        def bearer(key: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {key}"}

        for headers in ({}, bearer("mai_wrong"), {"Authorization": "Basic eDp5"}, {"X-API-Key": ""}):
            answer = ask.post("/v1/scan", content=jpeg, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"] == "no_key"
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/v1/detectors", "/v1/weights", "/metrics", "/v1/jobs/x"):
            assert ask.get(path).status_code == 401
        for path in ("/", "/static/app.js", "/healthz", "/readyz", "/docs", "/openapi.json", "/v1/limits"):
            assert ask.get(path).status_code == 200
        assert ask.get("/v1/limits").json()["needs_key"] is True
        assert ask.get("/openapi.json").json()["security"] == [{"key": []}]
        assert ask.post("/v1/scan", content=jpeg, headers={"X-API-Key": one}).status_code == 200

        answers = [ask.post("/v1/scan", content=jpeg, headers=bearer(one)) for _ in range(6)]
        assert [a.status_code for a in answers].count(429) >= 1
        last = answers[-1]
        assert last.json()["error"] == "rate_limit"
        assert 1 <= int(last.headers["retry-after"]) <= 60
        assert ask.post("/v1/scan", content=jpeg, headers=bearer(two)).status_code == 200

        job = ask.post("/v1/jobs", content=jpeg, headers=bearer(two)).json()["id"]
        assert ask.get(f"/v1/jobs/{job}", headers=bearer(two)).status_code == 200
        assert ask.get(f"/v1/jobs/{job}", headers=bearer(one)).status_code == 404
        assert ask.delete(f"/v1/jobs/{job}", headers=bearer(one)).status_code == 404

        own = bearer(two) | {"Host": "mai.example.org"}
        assert ask.get("/v1/weights", headers=own).status_code == 200
        assert ask.get("/v1/weights", headers=own | {"Host": "other.example.org"}).status_code == 403
        told = (tmp_path / "log").read_text()
        assert one not in told
        assert two not in told
