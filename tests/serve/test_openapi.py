"""The description of the interface: valid, complete, of use to tools; and what fuzzing finds."""

from __future__ import annotations

import importlib
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image
from running_service import Running, picture

from mai.serve.openapi import EXAMPLE_RECORD
from mai.serve.refusal import CODES

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000")


@pytest.fixture(scope="module")
def described(service: Running) -> dict[str, Any]:
    told: dict[str, Any] = service.client.get("/openapi.json").json()
    return told


def test_every_reference_leads_somewhere_and_examples_hold(described: dict[str, Any]) -> None:
    text = json.dumps(described)
    names = described["components"]["schemas"]
    for part in text.split('"$ref": "')[1:]:
        target = part.split('"')[0]
        assert target.startswith("#/components/schemas/")
        assert target.rsplit("/", 1)[1] in names, target
    whole = {"$ref": "#/components/schemas/Record", "components": described["components"]}
    jsonschema.Draft202012Validator(whole).validate(EXAMPLE_RECORD)
    assert described["openapi"].startswith("3.1")


def test_every_answer_is_described(service: Running, described: dict[str, Any]) -> None:
    row = service.client.post("/v1/scan", content=picture()).json()
    refs = {"components": described["components"]}
    jsonschema.Draft202012Validator({"$ref": "#/components/schemas/Record"} | refs).validate(row)
    case = service.client.post("/v1/explain", content=picture()).json()
    jsonschema.Draft202012Validator({"$ref": "#/components/schemas/Case"} | refs).validate(case)
    error = service.client.post("/v1/scan").json()
    jsonschema.Draft202012Validator({"$ref": "#/components/schemas/Error"} | refs).validate(error)


def test_docs_page_and_docs_name_every_call_and_every_error(
    service: Running, described: dict[str, Any], root: Path
) -> None:
    page = service.client.get("/docs").text
    docs = (root / "docs" / "serve.md").read_text("utf-8")
    for path, methods in described["paths"].items():
        assert path in page
        known = path.replace("{job}", "ID").replace("{name}", "record")
        assert known in docs, f"docs/serve.md does not name {known}"
        for method in methods:
            assert f"{method.upper()} {path}" in page
    for code in CODES:
        assert f"`{code}`" in docs, f"docs/serve.md does not say what {code} means"


def test_a_generated_client_works(service: Running, described: dict[str, Any], tmp_path: Path) -> None:
    """openapi-python-client writes a package from the description; it judges a picture."""
    pytest.importorskip("openapi_python_client", reason="openapi-python-client is not installed")
    (tmp_path / "openapi.json").write_text(json.dumps(described))
    command = Path(sys.executable).with_name("openapi-python-client")
    done = subprocess.run(
        [command, "generate", "--path", "openapi.json", "--output-path", "out", "--meta", "none"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "out").rename(tmp_path / "made_client")
    sys.path.insert(0, str(tmp_path))
    try:
        client = importlib.import_module("made_client").Client(
            base_url=service.url, httpx_args={"trust_env": False}, timeout=60
        )
        types = importlib.import_module("made_client.types")
        scan = importlib.import_module("made_client.api.pictures.scan")
        models = importlib.import_module("made_client.models")
        file = types.File(io.BytesIO(picture()), "a.jpg", "image/jpeg")
        body = next(
            m for n, m in vars(models).items() if (n.startswith("Scan") and "Files" in n) or n == "ScanBody"
        )
        answer = scan.sync_detailed(client=client, body=body(file=[file]))
        assert answer.status_code == 200
        assert json.loads(answer.content)["path"] == "a.jpg"
        assert answer.parsed.path == "a.jpg"
        alive = importlib.import_module("made_client.api.service.alive").sync_detailed(client=client)
        assert alive.status_code == 200
    finally:
        sys.path.remove(str(tmp_path))


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """A real picture with bytes changed, cut, doubled, or a piece of another put in."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 8)):
        at, kind = rng.randrange(max(1, len(data))), rng.randrange(5)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 64)]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 64))
        elif kind == 3:
            other = rng.choice(seeds)
            start = rng.randrange(len(other))
            data[at : at + 64] = other[start : start + 64]
        else:
            data[at : at + 4] = rng.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
            )
    return bytes(data)


def seeds() -> list[bytes]:
    made = []
    for kind in FORMATS:
        try:
            made.append(picture(90, kind))
        except (KeyError, OSError, ValueError):  # this Pillow cannot write it
            continue
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E], exif[0x0110] = "a description", "a camera"
    Image.open(io.BytesIO(picture())).save(stream, "JPEG", exif=exif)
    return [*made, stream.getvalue()]


def fuzz(service: Running, n: int, seed: int) -> dict[int, int]:
    rng, known = random.Random(seed), seeds()
    counts: dict[int, int] = {}
    for number in range(n):
        data = mutated(rng, known)
        path = "/v1/explain" if number % 5 == 0 else "/v1/scan"
        answer = service.client.post(path, params={"name": f"{number}"}, content=data)
        counts[answer.status_code] = counts.get(answer.status_code, 0) + 1
        if number % 500 == 499:
            print(number + 1, counts, flush=True)
        assert answer.status_code in (200, 413, 422, 504, 503), (number, answer.text)
        row = answer.json()
        assert row.get("message") or row.get("record") or row["status"] == "ok"
    return counts


def test_mutated_pictures_never_give_a_500(service: Running) -> None:
    counts = fuzz(service, 80, 1)
    assert counts.get(200)
    assert counts.get(422)


@pytest.mark.soak
def test_ten_thousand_mutated_pictures(service: Running) -> None:
    print(fuzz(service, int(os.environ.get("MAI_FUZZ_N", "10000")), 2))
    assert service.client.get("/healthz").status_code == 200


def schemathesis_run(service: Running, tmp_path: Path, n: int) -> str:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    command = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [command, "run", f"{service.url}/openapi.json", "--checks", "not_a_server_error,content_type_conformance",
         "--phases", "examples,coverage,fuzzing", "--max-examples", str(n), "--seed", "1",
         "--exclude-path-regex", "events", "--exclude-method", "DELETE"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=3000,
        env=os.environ | {"NO_COLOR": "1", "SCHEMATHESIS_HOOKS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.soak
def test_schemathesis_finds_no_server_error(service: Running, tmp_path: Path) -> None:
    print(schemathesis_run(service, tmp_path, int(os.environ.get("MAI_FUZZ_EXAMPLES", "300")))[-1500:])


def test_strange_bodies_and_headers_never_give_a_500(service: Running) -> None:
    """What a fuzzer tries first, by hand and in a second."""
    calls: list[dict[str, Any]] = [
        {"url": "/v1/scan", "headers": {"Content-Type": "multipart/form-data; boundary="}, "content": b"x"},
        {"url": "/v1/scan", "headers": {"Content-Type": 'multipart/form-data; boundary="' + "a" * 500 + '"'}},
        {
            "url": "/v1/scan",
            "headers": {"Content-Type": "multipart/form-data; boundary=\xe9"},
            "content": b"--\xe9--",
        },
        {"url": "/v1/scan", "headers": {"Content-Type": "application/json"}, "content": b"{" * 100_000},
        {"url": "/v1/scan", "headers": {"Content-Type": ";;;=;"}, "content": picture()},
        {"url": "/v1/scan", "headers": {"Content-Length": "abc"}, "content": b""},
        {"url": "/v1/scan?name=%00%ff%c3%28", "content": picture()},
        {"url": "/v1/scan?name=" + "x" * 20_000, "content": picture()},
        {"url": "/v1/explain?format=", "content": picture()},
        {"url": "/v1/explain?format=html&format=json", "content": picture()},
        {"url": "/v1/jobs", "content": b"PK\x03\x04 not a zip"},
        {
            "url": "/v1/jobs",
            "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            "content": b"--x--",
        },
        {"url": "/v1/jobs/%00/results", "content": b""},
    ]
    for call in calls:
        headers = {k: v.encode("latin-1") for k, v in call.get("headers", {}).items()}
        try:
            answer = service.client.post(call["url"], content=call.get("content"), headers=headers)
        except Exception as error:  # refused below HTTP, by the server's parser
            assert "Remote" in type(error).__name__ or "Protocol" in type(error).__name__, call
            continue
        assert answer.status_code < 500, (call, answer.text)
    assert service.client.get("/healthz").status_code == 200
