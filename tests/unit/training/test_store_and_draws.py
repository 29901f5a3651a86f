"""What review found: a store belongs to its rows in their order, and the pictures of a pair get draws of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from mai.data.augment import draw_name
from mai.data.sources import read_set
from mai.data.store import open_store


def _set(folder: Path, order: list[int]) -> Path:
    folder.mkdir(exist_ok=True)
    for i in order:
        Pil.new("RGB", (80, 80), (i * 20, i * 20, i * 20)).save(folder / f"{i}.png")
    lines = [f"{i}.png,{('authentic', 'synthetic')[i % 2]}" for i in order]
    path = folder / "labels.csv"
    path.write_text("file,label\n" + "\n".join(lines) + "\n")
    return path


def _greys(csv: Path) -> dict[str, int]:
    store = open_store(read_set(csv), n_workers=1, quiet=True)
    return {Path(store.rows[view.row].file).name: int(np.median(store.read(view))) for view in store.views}


def test_a_store_follows_the_order_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "cache"))
    wanted = {f"{i}.png": i * 20 for i in range(6)}
    assert _greys(_set(tmp_path / "set", [0, 1, 2, 3, 4, 5])) == wanted
    assert _greys(_set(tmp_path / "set", [5, 3, 1, 4, 2, 0])) == wanted


def test_a_store_follows_a_file_that_changed_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "cache"))
    csv = _set(tmp_path / "set", [0, 1, 2, 3])
    before = _greys(csv)
    Pil.new("RGB", (80, 80), (200, 200, 200)).save(tmp_path / "set" / "2.png")
    assert _greys(csv) == {**before, "2.png": 200}


def test_the_members_of_a_pair_share_their_draws_and_pairs_do_not() -> None:
    names = {draw_name(f"pairs/{i}/{side}") for i in range(5) for side in ("authentic", "synthetic")}
    assert len(names) == 5
    assert len({draw_name(f"set/authentic/{i}.png") for i in range(5)}) == 5
    assert draw_name("somewhere/set/fake/1.png") == draw_name("elsewhere/set/fake/1.png")


def test_workers_are_forked_with_the_call() -> None:
    """Forked at the first batch, they held all that the training had read until then."""
    import multiprocessing

    from mai.training.batches import batches

    before = set(multiprocessing.active_children())
    stream = batches(_Same(), [[1], [2], [3]], 2)  # type: ignore[arg-type, list-item]
    assert len(set(multiprocessing.active_children()) - before) == 2
    assert list(stream) == [[1], [2], [3]]


class _Same:
    def __getitem__(self, key: object) -> object:
        return key
