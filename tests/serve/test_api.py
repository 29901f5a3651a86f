"""The interface over a real socket: what comes back for good, bad and too much."""

from __future__ import annotations

import io
import json
from pathlib import Path

import httpx
import jsonschema
import pytest
from PIL import Image
from running_service import Running, picture, serving

from mai.pipeline import Scanner
from mai.report import case, schema


def scan(service: Running, **form: object) -> httpx.Response:
    return service.client.post("/v1/scan", **form)  # type: ignore[arg-type]


def test_plain_bytes_give_the_row_of_mai_scan(service: Running, weights: Path, jpeg: bytes) -> None:
    answer = service.client.post("/v1/scan", params={"name": "a/b.jpg"}, content=jpeg)
    assert answer.status_code == 200
    row = answer.json()
    jsonschema.validate(row, schema.schema())
    own = Scanner(None, weights=weights).scan(jpeg).to_dict()
    assert row["path"] == "a/b.jpg"
    for key in ("status", "label", "score", "reason", "thresholds", "evidence", "image"):
        assert row[key] == own[key], key


def test_one_file_of_a_form_gives_a_row_and_many_give_records(service: Running) -> None:
    one = scan(service, files={"file": ("one.png", picture(30, "PNG"), "image/png")})
    assert one.json()["path"] == "one.png"
    many = scan(service, files=[("file", (f"{n}.jpg", picture(60 * n), "image/jpeg")) for n in range(4)])
    records = many.json()["records"]
    assert [record["path"] for record in records] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert [record["label"] for record in records] == [
        scan(service, content=picture(60 * n)).json()["label"] for n in range(4)
    ]
    assert len({record["score"] for record in records}) > 1


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"hello", "not_an_image", 422),
        (picture()[:700], "truncated", 422),
        (picture(size=(2400, 1800), quality=30), "too_large", 413),
    ],
)
def test_a_bad_picture_gets_a_row_with_a_sentence(
    service: Running, data: bytes, status: str, code: int
) -> None:
    answer = service.client.post("/v1/scan", content=data)
    assert answer.status_code == code
    row = answer.json()
    jsonschema.validate(row, schema.schema())
    assert row["status"] == status
    assert row["label"] is None
    assert row["message"].endswith(".")


def test_one_bad_picture_among_many_spoils_none(service: Running, jpeg: bytes) -> None:
    files = [
        ("file", ("a.jpg", jpeg)),
        ("file", ("b.txt", b"no")),
        ("file", ("c.jpg", b"")),
        ("file", ("d.jpg", jpeg)),
    ]
    answer = scan(service, files=files)
    assert answer.status_code == 200
    assert [r["status"] for r in answer.json()["records"]] == ["ok", "not_an_image", "empty", "ok"]


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error", "message"}
    assert told["error"] == code
    assert told["message"][0].isupper() or told["message"][0] in "'`"
    assert told["message"].endswith(".")
    return str(told["message"])


def test_limits_are_sentences(service: Running, jpeg: bytes) -> None:
    large = b"\xff\xd8\xff" + bytes(2_100_000)
    refused(service.client.post("/v1/scan", content=large), 413, "body_too_large")
    refused(scan(service, files={"file": ("a.jpg", large)}), 413, "body_too_large")
    told = refused(scan(service, files=[("file", ("a.jpg", jpeg))] * 9), 413, "too_many_files")
    assert "8 files" in told
    refused(service.client.post("/v1/scan", content=bytes(9_000_000)), 413, "body_too_large")


def test_a_body_without_length_is_measured_as_it_comes(service: Running) -> None:
    pieces = (bytes(100_000) for _ in range(40))
    refused(service.client.post("/v1/scan", content=pieces), 413, "body_too_large")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b"nothing of a form"),
        ("multipart/form-data; boundary=x", b"--x\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf',
        ),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a" * 20_000 + b": b\r\n\r\n\r\n--x--\r\n"),
    ],
)
def test_a_damaged_form_is_a_bad_request(service: Running, kind: str, body: bytes) -> None:
    refused(service.client.post("/v1/scan", content=body, headers={"Content-Type": kind}), 400, "bad_request")


def test_nothing_to_look_at(service: Running) -> None:
    refused(service.client.post("/v1/scan"), 422, "no_image")
    form = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(service.client.post("/v1/scan", content=form, headers=headers), 422, "no_image")


def test_explain_gives_a_case_or_the_report(service: Running, jpeg: bytes) -> None:
    answer = service.client.post("/v1/explain", params={"name": "<b>&.jpg"}, content=jpeg)
    assert answer.status_code == 200
    registry_case = {**case.schema()}
    record = answer.json()["record"]
    jsonschema.validate(record, schema.schema())
    assert set(registry_case["required"]) <= set(answer.json())
    assert answer.json()["heat_maps"][0]["logits"]
    for headers, params in (({}, {"format": "html"}), ({"Accept": "text/html"}, {})):
        page = service.client.post(
            "/v1/explain", params=params | {"name": "<b>&.jpg"}, headers=headers, content=jpeg
        )
        assert page.headers["content-type"].startswith("text/html")
        assert "&lt;b&gt;&amp;.jpg" in page.text
        assert "<b>" not in page.text
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "sandbox" in policy
        assert "unsafe-inline" not in policy


def test_explain_of_a_broken_file_says_why(service: Running) -> None:
    answer = service.client.post("/v1/explain", content=b"hello")
    assert answer.status_code == 422
    assert answer.json()["record"]["status"] == "not_an_image"
    page = service.client.post("/v1/explain?format=html", content=b"hello")
    assert page.status_code == 422
    assert "not an image" in page.text
    refused(service.client.post("/v1/explain?format=pdf", content=b"hello"), 422, "wrong_value")


def test_a_name_of_a_client_names_no_file(service: Running, jpeg: bytes, tmp_path: Path) -> None:
    names = ["../../../../tmp/evil.jpg", "/etc/passwd", "a\\b.jpg", "\u202egpj.exe", "x" * 2000, "n\x00l.jpg"]
    files = [("file", (name, jpeg)) for name in names]
    answer = scan(service, files=files)
    assert answer.status_code == 200, answer.text
    records = answer.json()["records"]
    assert {record["status"] for record in records} == {"ok"}
    assert not Path("/tmp/evil.jpg").exists()
    text = service.client.post("/v1/scan", params={"name": "\u202egpj.exe"}, content=jpeg).text
    assert "\u202e" not in text
    assert "\\u202e" in text
    assert max(len(record["path"]) for record in records) <= 1000


def test_nothing_is_left_behind(service: Running, jpeg: bytes) -> None:
    scan(service, files=[("file", ("a.jpg", jpeg))] * 3)
    folders = list(service.log.with_name(f"{service.log.name}-tmp").glob("mai-serve-*"))
    assert len(folders) == 1
    assert folders[0].stat().st_mode & 0o077 == 0
    assert not [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def test_what_the_service_says_of_itself(service: Running) -> None:
    told = service.client.get("/v1/detectors").json()
    asked = [detector["name"] for detector in told["detectors"] if detector["is_asked"]]
    assert asked == ["c2pa", "metadata", "watermark", "resnet"]
    assert any("SynthID" in line for line in told["not_checked"])
    weights = service.client.get("/v1/weights").json()
    assert weights["weights"][0]["detector"] == "resnet"
    assert "1 in 100" in weights["operating_point"]
    assert service.client.get("/v1/limits").json()["max_bytes"] == 2_000_000
    assert service.client.get("/healthz").json() == {"status": "alive"}
    assert service.client.get("/readyz").json()["workers"] >= 1
    assert service.client.get("/v1/schema/record").json() == schema.schema()
    metrics = service.client.get("/metrics").text
    assert 'mai_images_total{label="none",status="not_an_image"}' in metrics
    assert 'route="/v1/scan"' in metrics


def test_headers_against_misuse(service: Running, jpeg: bytes) -> None:
    for path in ("/", "/static/app.js", "/v1/limits", "/nothing", "/docs"):
        headers = service.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
    assert service.client.post("/v1/scan", content=jpeg).headers["cache-control"] == "no-store"


def test_other_names_and_other_sites_are_refused(service: Running, jpeg: bytes) -> None:
    """On loopback a foreign name is DNS re-binding, and a foreign origin another site's page."""
    refused(service.client.get("/", headers={"Host": "evil.example"}), 403, "not_allowed")
    refused(
        service.client.post("/v1/scan", content=jpeg, headers={"Origin": "https://evil.example"}),
        403,
        "not_allowed",
    )
    refused(service.client.post("/v1/scan", content=jpeg, headers={"Origin": "null"}), 403, "not_allowed")
    for origin in ("http://[", "//", "http://[::1"):
        refused(service.client.get("/", headers={"Origin": origin}), 403, "not_allowed")
    own = {"Origin": service.url}
    assert service.client.post("/v1/scan", content=jpeg, headers=own).status_code == 200


def test_unknown_paths_and_methods(service: Running) -> None:
    refused(service.client.get("/nothing"), 404, "not_found")
    refused(service.client.get("/static/../app.py"), 404, "not_found")
    refused(service.client.get("/static/%2e%2e/%2e%2e/app.py"), 404, "not_found")
    answer = service.client.put("/v1/scan")
    refused(answer, 405, "wrong_method")
    assert "POST" in answer.headers["allow"]


def test_urls_are_not_fetched_unless_allowed(service: Running) -> None:
    answer = service.client.post("/v1/scan", json={"urls": ["http://example.org/a.jpg"]})
    assert "--allow-urls" in refused(answer, 422, "url_refused")


def test_a_slow_image_is_stopped_and_the_service_goes_on(tmp_path: Path, weights: Path, jpeg: bytes) -> None:
    with serving(
        "--workers", "1", "--weights", str(weights), "--timeout", "0.001", log=tmp_path / "log"
    ) as hasty:
        answer = hasty.client.post("/v1/scan", content=picture(size=(1600, 1200)))
        assert answer.status_code == 504
        assert answer.json()["status"] == "timed_out"
        assert "0.001 s" in answer.json()["message"]
        assert hasty.client.get("/healthz").status_code == 200
        assert json.loads(hasty.client.post("/v1/scan", content=jpeg).text)["schema"] == "mai.record/1"


def test_memory_of_a_worker_is_limited(tmp_path: Path, weights: Path, jpeg: bytes) -> None:
    with serving(
        "--workers", "1", "--weights", str(weights), "--memory", "400", log=tmp_path / "log"
    ) as small:
        stream = io.BytesIO()
        Image.new("1", (9000, 9000)).save(stream, "PNG")
        greedy = stream.getvalue()
        answer = small.client.post("/v1/scan", content=greedy)
        assert answer.status_code in (413, 503)
        assert "memory" in answer.json()["message"]
        assert small.client.post("/v1/scan", content=jpeg).json()["status"] == "ok"
