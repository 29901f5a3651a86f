"""`mai weights push` against a hub on the loopback: the real client, the files as they lie, sentences when it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_hub import Hub, serving, surroundings
from small_network import make_weights

pytest.importorskip("huggingface_hub", reason="uploading needs the extra 'vlm'")


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    with serving() as served:
        yield served


def push(endpoint: str, folder: Path, *more: str, token: str = "right") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mai", "weights", "push", str(folder), *more]
    return subprocess.run(
        command, env=surroundings(endpoint, token), capture_output=True, text=True, check=False, timeout=180
    )


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
