"""Perturbations by name: what they do, that they repeat, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_pictures import draw

from mai.bench.perturb import KERNELS, PRESETS, SWEEPS, parse, sweep
from mai.errors import UsageError

PICTURE = draw(3, synthetic=False)


@pytest.mark.parametrize("name", sorted({name for names in SWEEPS.values() for name in names} | set(PRESETS)))
def test_every_named_perturbation_gives_a_picture_and_repeats(name: str) -> None:
    made = parse(name)(PICTURE, "a.jpg", seed=1)
    assert made.dtype == np.uint8
    assert made.ndim == 3
    assert made.shape[2] == 3
    assert np.array_equal(made, parse(name)(PICTURE, "a.jpg", seed=1))
    assert made.shape != PICTURE.shape or not np.array_equal(made, PICTURE)


def test_sizes_follow_the_name() -> None:
    height, width = PICTURE.shape[:2]
    assert parse("none")(PICTURE, "a") is PICTURE
    assert parse("resize-0.5")(PICTURE, "a").shape[:2] == (round(height / 2), round(width / 2))
    assert parse("crop-0.2")(PICTURE, "a").shape[:2] == (round(height * 0.8), round(width * 0.8))
    assert max(parse("fit-100")(PICTURE, "a").shape) == 100
    assert parse("fit-9999")(PICTURE, "a") is PICTURE
    assert parse("resize-0.5+jpeg-70")(PICTURE, "a").shape[:2] == (round(height / 2), round(width / 2))


def test_places_of_crops_hang_on_the_picture_and_the_seed() -> None:
    crop = parse("crop-0.3")
    assert not np.array_equal(crop(PICTURE, "a"), crop(PICTURE, "b"))
    assert not np.array_equal(crop(PICTURE, "a"), crop(PICTURE, "a", seed=1))


def test_more_of_it_changes_more() -> None:
    def change(name: str) -> float:
        return float(np.abs(parse(name)(PICTURE, "a").astype(int) - PICTURE).mean())

    assert change("jpeg-30") > change("jpeg-90")
    assert change("webp-30") > change("webp-95")
    assert change("blur-3") > change("blur-0.5")
    assert change("noise-8") > change("noise-2")
    kernels = [parse(f"resize-0.5-{kernel}")(PICTURE, "a") for kernel in KERNELS]
    assert len({picture.tobytes() for picture in kernels}) == len(KERNELS)


WRONG = (
    "jpeg",
    "jpeg-0",
    "jpeg-101",
    "resize-9",
    "resize-0.5-sharp",
    "crop-1",
    "sepia",
    "blur-x",
    "+",
    "jpeg-70+",
)


@pytest.mark.parametrize("name", WRONG)
def test_other_names_are_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(UsageError, match=r"is no perturbation\. Known: none, jpeg"):
        parse(name)


def test_sweeps_and_lists() -> None:
    assert sweep("quick,jpeg-70,blur-1") == ("jpeg-70", "webp-80", "resize-0.5", "blur-1")
    assert sweep("") == ()
    assert set(SWEEPS["stability"]) >= {"jpeg-70", "webp-80", "resize-0.5", "resize-0.75", "crop-0.05"}
