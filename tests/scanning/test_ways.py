"""Ways to judge many: copies once, several pictures at once, a device that is not there, workers that were measured."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil
from small_network import make_weights, picture

from mai.errors import UsageError
from mai.images.find import Found, find
from mai.pipeline import Scanner, ScanSettings
from mai.scanning import tune
from mai.scanning.copies import NearIndex, scan_grouped
from mai.scanning.count import Count
from mai.scanning.engine import Engine, how
from mai.scanning.local import runner, scan_local
from mai.types import Record


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights"))


def scene(seed: int, side: int = 400) -> Pil.Image:
    """Random shapes: no two seeds look alike, and a copy looks like its original."""
    rng = np.random.default_rng(seed)
    small = Pil.fromarray(rng.integers(0, 255, (5, 4, 3)).astype(np.uint8))
    return small.resize((side, side), Pil.Resampling.BICUBIC)


def saved(image: Pil.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures, three copies of each: re-encoded, resized, cropped by a hair; blank ones; a broken one."""
    home = tmp_path_factory.mktemp("copies")
    for seed in range(6):
        image = scene(seed)
        (home / f"{seed}a.png").write_bytes(saved(image, "PNG"))
        (home / f"{seed}b.jpg").write_bytes(saved(image, "JPEG", quality=60))
        (home / f"{seed}c.webp").write_bytes(saved(image.resize((250, 250)), "WEBP", quality=80))
        (home / f"{seed}d.jpg").write_bytes(saved(image.crop((2, 2, 399, 399)), "JPEG", quality=90))
    for grey in (90, 160):
        (home / f"blank{grey}.png").write_bytes(saved(Pil.new("RGB", (300, 300), (grey,) * 3), "PNG"))
    (home / "broken.jpg").write_bytes((home / "0b.jpg").read_bytes()[:900])
    return home


def grouped(folder: Path, scanner: Scanner, n_workers: int, kept: Path | None = None) -> list[Record]:
    run = runner(scanner.settings, n_workers, None, scanner)
    return list(scan_grouped(find([folder]), scanner, run, kept))


def shared_from(record: Record) -> str | None:
    named = {e.details.get("shared_from") for e in record.evidence} - {None}
    return Path(named.pop()).name if named else None


def test_copies_are_judged_once_and_share_the_verdict(copies: Path, weights: Path) -> None:
    scanner = Scanner(["metadata", "resnet"], weights=weights)
    n_looks = 0
    look = scanner.detectors["resnet"].look

    def counted(images: Any) -> Any:
        nonlocal n_looks
        n_looks += len(images)
        return look(images)

    scanner.detectors["resnet"].look = counted  # type: ignore[method-assign]
    records = grouped(copies, scanner, 1)
    assert n_looks == 6 + 2
    assert [Path(r.path).name for r in records] == sorted(p.name for p in copies.iterdir())
    by_name = {Path(r.path).name: r for r in records}
    for name, record in by_name.items():
        if name[0].isdigit() and name[1] != "a":
            first = by_name[f"{name[0]}a.png"]
            assert shared_from(record) == f"{name[0]}a.png"
            assert (record.label, record.score) == (first.label, first.score)
            assert [e.detector for e in record.evidence] == ["metadata", "resnet"]
            assert record.image != first.image
    assert [shared_from(by_name[n]) for n in ("blank90.png", "blank160.png", "broken.jpg")] == [None] * 3
    assert by_name["broken.jpg"].status == "truncated"
    again = grouped(copies, Scanner(["metadata", "resnet"], weights=weights), 2)
    assert [replace(r, seconds={}) for r in again] == [replace(r, seconds={}) for r in records]


def test_what_a_copy_says_itself_is_read_of_each(tmp_path: Path, weights: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text(
        "parameters", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: x"
    )
    (tmp_path / "1.png").write_bytes(saved(scene(1), "PNG"))
    (tmp_path / "2.png").write_bytes(saved(scene(1), "PNG", pnginfo=text))
    (tmp_path / "3.png").write_bytes(saved(scene(1), "PNG", optimize=True))
    records = grouped(tmp_path, Scanner(["metadata", "resnet"], weights=weights), 1)
    assert records[1].reason == "declared_metadata"
    assert records[1].label == "synthetic"
    assert records[0].label == records[2].label
    assert records[2].reason != "declared_metadata"


def test_firsts_outlive_a_stop(copies: Path, weights: Path, tmp_path: Path) -> None:
    kept = tmp_path / "firsts.sqlite"
    scanner = Scanner(["resnet"], weights=weights)
    whole = grouped(copies, scanner, 1)
    run = runner(scanner.settings, 1, None, scanner)
    founds = list(find([copies]))
    begun = scan_grouped(founds, scanner, run, kept)
    done = [next(begun) for _ in range(7)]
    begun.close()  # type: ignore[attr-defined]
    # The eighth was looked at, but its row was never written: it is its own first, not a copy.
    rest = list(scan_grouped(founds[7:], scanner, run, kept))
    assert [replace(r, seconds={}) for r in (*done, *rest)] == [replace(r, seconds={}) for r in whole]


def test_the_whole_command_groups_and_resumes(copies: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "mai", "scan", str(copies), "--weights", str(weights), "--detectors", "resnet",
               "--group-duplicates", "--workers", "2", "--output", str(output)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert sum("shared_from" in e["details"] for row in rows for e in row["evidence"]) == 18
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl"]


def test_the_index_finds_the_first_hash_within_four_bits() -> None:
    rng = np.random.default_rng(0)
    index, known = NearIndex(), []
    for step in range(12_000):
        if known and step % 3 == 0:
            value = known[int(rng.integers(len(known)))]
            for bit in rng.choice(64, int(rng.integers(0, 8)), replace=False):
                value ^= 1 << int(bit)
        else:
            value = int(rng.integers(0, 2**63)) * 2 + int(rng.integers(2))
        if step % 40 == 0 or step > 11_900:
            near = [i for i, other in enumerate(known) if (other ^ value).bit_count() <= 4]
            assert index.find(value) == (near[0] if near else None)
        index.add(value)
        known.append(value)


@pytest.mark.parametrize("batch", [3, 16])
def test_several_pictures_at_once_change_no_row(copies: Path, weights: Path, batch: int) -> None:
    def rows(n: int) -> list[Record]:
        scanner = Scanner(["metadata", "resnet"], weights=weights, batch=n)
        return [replace(r, seconds={}) for r in scanner.scan_many(find([copies]))]

    one, many = rows(1), rows(batch)
    assert [(r.path, r.status, r.label, r.reason) for r in many] == [
        (r.path, r.status, r.label, r.reason) for r in one
    ]
    assert [r.score or 0.0 for r in many] == pytest.approx([r.score or 0.0 for r in one], abs=1e-4)
    settings = ScanSettings(("metadata", "resnet"), weights=weights, batch=batch)
    crew = [replace(r, seconds={}) for r in scan_local(find([copies]), settings, 2)]
    assert [(r.path, r.status, r.label) for r in crew] == [(r.path, r.status, r.label) for r in one]


def test_a_network_that_fails_on_a_batch_is_asked_one_by_one(weights: Path) -> None:
    scanner = Scanner(["resnet"], weights=weights, batch=4)
    look = scanner.detectors["resnet"].look
    scanner.detectors["resnet"].look = lambda images: look(images) if len(images) == 1 else 1 / 0  # type: ignore
    rows = list(scanner.scan_many([picture(40 * i) for i in range(6)]))
    assert [r.status for r in rows] == ["ok"] * 6


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_not_there_is_said_and_the_cpu_used(weights: Path, device: Any) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    scanner = Scanner(["resnet"], weights=weights, device=device)
    (said,) = scanner.notes
    assert said.startswith(f"--device {device} is not used, the CPU is")
    assert "onnxruntime-gpu" in said
    assert scanner.scan(picture(200)).score == Scanner(["resnet"], weights=weights).scan(picture(200)).score


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(UsageError, match="--engine local"):
        how("ray", True, None)
    with pytest.raises(UsageError, match="goes with --engine ray"):
        how("local", False, 0.5)


def test_a_measurement_is_made_once_and_shown(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "MEASURE_S", 0.2)
    monkeypatch.setattr(tune, "n_cpus", lambda: 2)
    scanner, path = Scanner(["resnet"], weights=weights), tmp_path / "tuning.json"
    assert tune.choose(scanner, 100, path) == tune.usual()
    assert tune.choose(scanner, None, path) == tune.usual()
    assert not path.exists()
    choice = tune.choose(scanner, 5000, path)
    assert "measured on" in choice.reason
    assert "/s" in choice.reason
    start = monotonic()
    assert tune.choose(scanner, None, path) == choice
    assert monotonic() - start < 0.1
    told: list[str] = []
    monkeypatch.setattr(tune, "default_file", lambda: tmp_path / "evidence.sqlite")
    (tmp_path / "tuning_v1.json").write_bytes(path.read_bytes())
    founds = [Found(str(i), data=picture(i), named=True) for i in range(40)]
    assert len(list(Engine(scanner, say=told.append).run(founds))) == 40
    assert told == [f"{choice} ({choice.reason})."]
    path.write_text("{")
    assert tune.choose(scanner, 10, path) == tune.usual()


def counted(sources: Iterable[Any]) -> int | None:
    count = Count(map(str, sources))
    until = monotonic() + 5
    while count.total is None and monotonic() < until:
        sleep(0.01)
    return count.total


def test_files_are_counted_beside_the_scan(copies: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for name in ("a.jpg", "b.png", "c.txt"):
            archive.writestr(name, b"x")
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\n")
    (tmp_path / "list.csv").write_text("file,label\na.jpg,1\nb.jpg,2\nc.jpg,3\n")
    n = len(list(find([copies])))
    sources = [copies, tmp_path / "s.zip", f"@{tmp_path / 'list.txt'}", tmp_path / "list.csv", copies / "0*"]
    assert counted(sources) == n + 2 + 2 + 3 + 4
    assert counted([copies / "0a.png"]) == 1


@pytest.mark.parametrize("source", ["-", "s3://bucket/a/"])
def test_what_cannot_be_counted_has_no_total(source: str) -> None:
    count = Count([source])
    sleep(0.1)
    assert count.total is None


def test_programs_are_told_how_long_it_takes(copies: Path, weights: Path) -> None:
    command = [sys.executable, "-m", "mai", "scan", *[str(copies)] * 8, "--weights", str(weights), "--no-cache",
               "--workers", "1", "--progress", "json", "--jsonl"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    n = 8 * len(list(copies.iterdir()))
    assert told[-1]["files"] == told[-1]["total"] == n
    assert told[-1]["statuses"] == {"truncated": 8}
    assert told[-1]["seconds_left"] is None
    if len(told) > 2:
        assert told[1]["seconds_left"] > 0
