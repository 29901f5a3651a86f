"""What ships to run the service elsewhere: container, compose file, systemd unit."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from mai.cli.serve import command


def options() -> set[str]:
    return {name for p in command.params if isinstance(p, click.Option) for name in p.opts}


def test_dockerfile_is_what_it_should_be(root: Path) -> None:
    text = (root / "Dockerfile").read_text()
    last = text.split("FROM ")[-1]
    user = re.search(r"^USER (\d+):(\d+)$", last, re.MULTILINE)
    assert user is not None
    assert int(user[1]) > 0
    assert "HEALTHCHECK" in last
    assert 'ENTRYPOINT ["mai", "serve"]' in last
    assert set(re.findall(r'"(--[\w-]+)"', last)) <= options()
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for name in line.split()[:-1]
    }
    ignored = (root / ".dockerignore").read_text()
    for name in copied:
        assert (root / name).exists()
        assert f"!{name}" in ignored, f"{name} does not reach the build"
    hadolint = shutil.which("hadolint", path=f"{root / '.venv' / 'bin'}:{__import__('os').environ['PATH']}")
    if hadolint is not None:
        done = subprocess.run(
            [hadolint, str(root / "Dockerfile")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_compose_file_takes_rights_away(root: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    service = yaml.safe_load((root / "compose.yaml").read_text())["services"]["mai"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert any(entry.startswith("/tmp") for entry in service["tmpfs"])
    assert {word for word in service["command"] if word.startswith("--")} <= options()


def test_unit_keeps_workers_alive_for_a_stop(root: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(root / "deploy" / "mai.service")
    service = unit["Service"]
    assert service["KillMode"] == "mixed"
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert set(re.findall(r"(--[\w-]+)", service["ExecStart"])) <= options()


def test_the_page_is_in_the_package(root: Path) -> None:
    from mai.serve import site

    found = site.files()
    assert {"index.html", "app.js", "style.css", "icon.svg", "i18n/en.json", "i18n/de.json"} <= set(found)
    html = found["index.html"][0].decode()
    for link in re.findall(r'(?:src|href)="static/([^"]+)"', html):
        assert link in found
