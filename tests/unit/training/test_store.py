"""Views decoded once: whole, atomic, broken pictures named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from labelled_pictures import make_set
from PIL import Image as Pil

from mai.data import store as stores
from mai.data.sources import read_set
from mai.data.store import VIEW_PX, open_store
from mai.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mai" / "stores"


def test_views_are_those_of_the_pictures(tmp_path: Path) -> None:
    labelled = read_set(str(make_set(tmp_path / "set", {"train": 3})))
    store = open_store(labelled, quiet=True)
    assert [view.kind for view in store.views] == ["whole", "crop"] * 6
    for view in store.views:
        with Pil.open(store.rows[view.row].file) as image:
            pixels = np.asarray(image.convert("RGB"))
        height, width = pixels.shape[:2]
        if view.kind == "whole":
            assert min(view.height, view.width) == min(VIEW_PX, height, width)
            assert view.width / view.height == pytest.approx(width / height, rel=0.01)
        else:
            side = min(VIEW_PX, height, width)
            top, left = round((height - side) / 2), round((width - side) / 2)
            assert np.array_equal(store.read(view), pixels[top : top + side, left : left + side])
    assert not store.read(store.views[0]).flags.writeable


def test_views_of_a_set_that_holds_views_are_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 140, 3), np.uint8)
    for name in ("a_whole", "a_crop", "a_web", "b_whole"):
        Pil.fromarray(pixels).save(tmp_path / f"{name}.png")
    lines = ["file,label,split,image,view"]
    lines += [f"a_{view}.png,synthetic,train,a,{view}" for view in ("whole", "crop", "web")]
    lines += ["b_whole.png,authentic,train,b,whole"]
    (tmp_path / "set.csv").write_text("\n".join(lines))
    store = open_store(read_set(str(tmp_path / "set.csv")), quiet=True)
    kinds = [(store.rows[view.row].view, view.kind) for view in store.views]
    assert kinds == [("whole", "whole"), ("crop", "crop"), ("whole", "whole")]
    assert all(np.array_equal(store.read(view), pixels) for view in store.views)


def test_made_once_and_again_when_the_set_changes(tmp_path: Path, cache: Path) -> None:
    folder = make_set(tmp_path / "set", {"train": 2})
    first = open_store(read_set(str(folder)), quiet=True)
    files = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(files) == 2
    again = open_store(read_set(str(folder)), quiet=True)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == files
    assert np.array_equal(again.pixels, first.pixels)
    (folder / "train" / "real" / "0.png").unlink()
    assert len(open_store(read_set(str(folder)), quiet=True).views) == len(first.views) - 2
    assert len(list(cache.iterdir())) == 4


def test_broken_pictures_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_set(tmp_path / "set", {"train": 2})
    whole = (folder / "train" / "fake" / "1.jpg").read_bytes()
    (folder / "train" / "fake" / "short.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "train" / "real" / "text.png").write_text("no picture")
    (folder / "train" / "real" / "empty.jpg").touch()
    store = open_store(read_set(str(folder)), quiet=True)
    assert {Path(file).name for file in store.broken} == {"short.jpg", "text.png", "empty.jpg"}
    assert {Path(store.rows[view.row].file).name for view in store.views} == {"0.png", "1.jpg"}
    told = capsys.readouterr().err
    for file, sentence in store.broken.items():
        assert f"left out: {file}: {sentence}" in told
    assert open_store(read_set(str(folder)), quiet=True).broken == store.broken  # also when read back


def test_a_set_without_one_whole_picture_says_so(tmp_path: Path) -> None:
    for name in ("real", "fake"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match="No picture of set can be read: "):
        open_store(read_set(str(tmp_path / "set")), quiet=True)


def test_many_processes_make_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = read_set(str(make_set(tmp_path / "set", {"train": 33})))  # 66 files: enough for a pool
    alone = open_store(labelled, n_workers=1, quiet=True)
    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "other"))
    pooled = open_store(labelled, n_workers=2, quiet=True)
    assert pooled.views == alone.views
    assert np.array_equal(pooled.pixels, alone.pixels)


def test_a_kill_leaves_no_half_store(tmp_path: Path, cache: Path) -> None:
    folder = make_set(tmp_path / "set", {"train": 20})
    code = (
        "import sys; from mai.data.sources import read_set; from mai.data.store import open_store; "
        "open_store(read_set(sys.argv[1]), 1, True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], env=os.environ)
    until = time.monotonic() + 60
    while not any(p.stat().st_size for p in cache.glob("*.tmp")) and time.monotonic() < until:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(cache.glob("*.json")), "no index without its pixels"
    store = open_store(read_set(str(folder)), quiet=True)
    assert len(store.views) == 80
    index = next(cache.glob("*.json"))
    assert json.loads(index.read_text())["broken"] == {}
    last = store.views[-1]
    assert store.pixels.size == last.offset + last.height * last.width * 3


def test_version_is_part_of_the_name(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = read_set(str(make_set(tmp_path / "set", {"train": 2})))
    open_store(labelled, quiet=True)
    monkeypatch.setattr(stores, "VERSION", stores.VERSION + 1)
    open_store(labelled, quiet=True)
    assert len(list(cache.glob("*.json"))) == 2
