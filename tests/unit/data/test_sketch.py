"""Whether a set was trained on, told by a few hashes of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mai.data import sketch
from mai.data.labelled import Row


def rows(folder: Path, names: range, copy: str = "") -> list[Row]:
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in names:
        path = folder / f"{copy}{number}.bin"
        path.write_bytes(f"picture {number}".encode())
        made.append(Row(str(path), number % 2))
    return made


def test_a_copy_under_other_names_is_known_and_another_set_is_not(tmp_path: Path) -> None:
    known = sketch.sketch(rows(tmp_path / "train", range(2000)))
    assert len(known) == sketch.SIZE
    copy = sketch.overlap(rows(tmp_path / "else", range(500, 1500), "copy"), known)
    assert copy
    assert copy.n_known == copy.n_told
    assert copy.n_told > 150
    fresh = sketch.overlap(rows(tmp_path / "fresh", range(5000, 6000)), known)
    assert not fresh
    assert fresh.n_told > 150
    half = sketch.overlap(rows(tmp_path / "half", range(1000, 3000)), known)
    assert half.n_known / half.n_told == pytest.approx(0.5, abs=0.1)


def test_small_sets_missing_files_and_weights_of_before(tmp_path: Path) -> None:
    few = rows(tmp_path, range(20))
    known = sketch.sketch(few)
    assert len(known) == 20
    (tmp_path / "3.bin").unlink()
    assert sketch.overlap(few, known) == sketch.Overlap(19, 19)
    assert not sketch.overlap(few, [])
