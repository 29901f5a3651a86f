"""Pairs in the forms that other programs read, signed on request."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pair_material import make_authentic
from signing import authority
from small_hub import serving, surroundings
from test_engine import prepared

from mai.data.sources import read_set
from mai.errors import DataError, UsageError
from mai.jobs.work import work
from mai.pairs import store
from mai.pairs.export import export
from mai.pairs.sign import own_key, read_key


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from slow_engine import task

    place = tmp_path_factory.mktemp("export")
    folder = prepared(place / "ds", make_authentic(place / "photos", 5), 3)
    work(folder, task(folder, 0.0))
    return folder


def test_image_folder_opens_in_both_worlds(pairs: Path, tmp_path: Path) -> None:
    import datasets

    assert export(pairs, "imagefolder", str(tmp_path / "x")) == 5
    labelled = read_set(tmp_path / "x")
    assert labelled.counts() == {"files": 10, "images": 10, "synthetic": 5, "authentic": 5}
    assert {row.source for row in labelled.rows} == {row.source for row in read_set(pairs).rows}
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "x"), cache_dir=str(tmp_path / "c")
    )["train"]
    assert loaded.num_rows == 5
    assert isinstance(loaded.features["authentic"], datasets.Image)
    with pytest.raises(UsageError, match="not empty"):
        export(pairs, "imagefolder", str(tmp_path / "x"))


@pytest.mark.parametrize("form", ["imagefolder", "webdataset", "vqa"])
def test_an_id_cannot_lead_out_of_the_output(pairs: Path, tmp_path: Path, form: Any) -> None:
    shutil.copytree(pairs, tmp_path / "ds")
    part = next(iter(store.parts(tmp_path / "ds")))
    rows = store.read_rows(part)
    rows[0]["id"] = "../../../escaped"
    store.write_rows(part, rows, store.pair_schema())
    with pytest.raises(DataError, match="no id of MAI's"):
        export(tmp_path / "ds", form, str(tmp_path / "a" / "b"))
    assert not list(tmp_path.rglob("*escaped*"))


def test_web_dataset_has_a_key_for_each_pair(pairs: Path, tmp_path: Path) -> None:
    assert export(pairs, "webdataset", str(tmp_path / "x")) == 5
    with tarfile.open(tmp_path / "x" / "pairs-000000.tar") as tar:
        names = tar.getnames()
        first = names[0].split(".")[0]
        assert names[:3] == [f"{first}.authentic.png", f"{first}.synthetic.png", f"{first}.json"]
        member = tar.extractfile(f"{first}.json")
        assert member is not None
        told = json.loads(member.read())
    row = next(row for row in store.rows_of(pairs) if row["id"] == first)
    assert told["caption"] == row["caption"]
    assert told["generator"]["seed"] == row["generator"]["seed"]


def test_questions_are_answered_yes_and_no(pairs: Path, tmp_path: Path) -> None:
    assert export(pairs, "vqa", str(tmp_path / "x")) == 5
    lines = [json.loads(line) for line in (tmp_path / "x" / "vqa.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    assert {line["question"] for line in lines} == {"Is this image AI-generated?"}
    by_id = {row["id"]: row for row in store.rows_of(pairs)}
    for line in lines:
        member = {"Yes.": "synthetic", "No.": "authentic"}[line["answer"]]
        assert (tmp_path / "x" / line["image"]).read_bytes() == by_id[line["pair"]][member]["bytes"]


def test_signed_files_declare_themselves(pairs: Path, tmp_path: Path) -> None:
    """As MAI's own reader of manifests sees them."""
    from mai.pipeline import Scanner

    export(pairs, "imagefolder", str(tmp_path / "x"), own_key())
    with_key = authority("Pairs")
    (tmp_path / "chain.pem").write_text(with_key.chain)
    (tmp_path / "key.pem").write_text(with_key.key)
    export(pairs, "webdataset", str(tmp_path / "y"), read_key(tmp_path / "chain.pem", tmp_path / "key.pem"))
    scanner = Scanner("c2pa")
    record = scanner.scan(next((tmp_path / "x" / "synthetic").glob("*.png")))
    assert record.label == "synthetic"
    assert record.reason == "signed_provenance"
    assert scanner.scan(next((tmp_path / "x" / "authentic").glob("*.png"))).label != "synthetic"
    with tarfile.open(tmp_path / "y" / "pairs-000000.tar") as tar:
        member = tar.extractfile(next(name for name in tar.getnames() if name.endswith("synthetic.png")))
        assert member is not None
        signed = scanner.scan(member.read())
    assert signed.label == "synthetic"


def test_a_key_that_is_none_is_said_so(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_text("no certificate")
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(UsageError, match="cannot be signed"):
        export(pairs, "vqa", str(tmp_path / "x"), read_key(tmp_path / "chain.pem", tmp_path / "key.pem"))


def test_the_hub_gets_the_shards_and_their_card(pairs: Path) -> None:
    """The real client against a hub on the loopback, by the command; a wrong token is told in a sentence."""
    pytest.importorskip("huggingface_hub", reason="uploading needs the extra 'pairs'")
    with serving() as (endpoint, kind):
        command = [
            sys.executable,
            "-m",
            "mai",
            "pairs",
            "export",
            str(pairs),
            "--to",
            "hub",
            "--output",
            "org/name",
        ]

        def upload(token: str) -> subprocess.CompletedProcess[str]:
            env = surroundings(endpoint, token)
            return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=180)

        refused = upload("wrong")
        assert refused.returncode == 2, refused.stderr
        assert "The hub did not take org/name" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert not kind.received
        done = upload("right")
        assert done.returncode == 0, done.stderr
        assert kind.created[0]["type"] == "dataset"
        shards = {f"data/{part.name}": part.read_bytes() for part in store.parts(pairs)}
        assert shards
        assert {name: kind.received[name] for name in shards} == shards
        assert set(kind.received) == {*shards, "README.md"}
        assert b"authentic" in kind.received["README.md"]
